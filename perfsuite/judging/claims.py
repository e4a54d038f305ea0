"""What is claimed of mixed precision, and whether it holds here: a sentence each. Pure functions.

A claim is answered by the interval alone, and needs no threshold: "yes" and "no" need all of it on
one side.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import NormalDist

from perfsuite.judging.estimates import Estimate, SampleError, mean_ratio, paired_ratio
from perfsuite.judging.gates import Outcome, Verdict, at_least, at_most, equivalent, not_gated
from perfsuite.judging.thresholds import Thresholds

PairOfFigures = tuple[Sequence[float], Sequence[float]]
"""A figure an epoch, of the reference and of mixed precision."""


def judge_claims(
    amp: str,
    reference: str,
    *,
    epoch_s: PairOfFigures,
    loss: PairOfFigures,
    right: tuple[Sequence[bool], Sequence[bool]],
    kept_bytes: Sequence[float],
    peak_bytes: Sequence[float],
    asked: Thresholds,
) -> list[tuple[Verdict, str]]:
    """Return verdict and sentence on each claim: faster, the same loss, less memory.

    Epochs are paired: both took theirs one right after the other. `right` says of each sample that
    was held out whether it was told in the end. Bytes are of the reference and
    of mixed precision: kept for the backward pass of a sample, and peaks, none on a device without.
    """
    speed, alike, memory = asked.amp_speedup, asked.convergence, asked.memory
    faster = _estimated(lambda: paired_ratio(*epoch_s, confidence=speed.confidence))
    losses = _estimated(lambda: mean_ratio(loss[1], loss[0], confidence=1 - 2 * alike.alpha))
    gate, limit = "activation_ratio", memory.max_activation_ratio
    if peak_bytes:
        gate, limit = "peak_ratio", memory.max_peak_ratio
    theirs, ours = peak_bytes or kept_bytes
    share = Estimate.exact(ours / theirs)
    fast = at_least("amp_speedup", faster, speed.minimum(amp, reference))
    fast = replace(fast, reason=faster.unknown or fast.reason)
    equal = equivalent("mean_loss", losses, alike.margin)
    ratio = right_ratio(right[1], right[0], confidence=1 - 2 * alike.alpha)
    told = equivalent("held_out", ratio, alike.margin)
    return [
        _told(
            f"Is {amp} faster than {reference}",
            fast,
            yes=faster.low > 1,
            no=faster.high < 1,
        ),
        _told(
            f"Is its loss that of {reference}",
            _of_one_pair(equal),
            yes=equal.outcome is Outcome.PASS,
            no=equal.outcome is Outcome.FAIL,
        ),
        _told(
            f"Is it as often right about held-out samples as {reference}",
            not_gated("held_out", told.figure, "one pair of runs"),
            yes=told.outcome is Outcome.PASS,
            no=told.outcome is Outcome.FAIL,
        ),
        _told(
            "Does it take less memory",
            at_most(gate, share, limit),
            yes=share.high < 1,
            no=share.low >= 1,
        ),
    ]


def right_ratio(ours: Sequence[bool], theirs: Sequence[bool], *, confidence: float) -> Estimate:
    """Return how many times as many of the same samples the first tells rightly.

    The interval is that of a ratio of proportions in matched pairs, by the delta method (Bonett and
    Price, Statistics in Medicine 25, 2006): only samples count that one tells and the other does
    not, of which one is added, so that equal answers to few samples are no certainty. It says how
    far these two trainings differ on other samples, and nothing of trainings from another seed.
    """
    known = sum(ours), sum(theirs)
    if not all(known):
        return Estimate.exact(known[0] / known[1] if known[1] else math.nan)
    apart = sum(one != other for one, other in zip(ours, theirs, strict=True))
    centre = math.log(known[0] / known[1])
    scatter = math.sqrt((apart + 1) / (known[0] * known[1]))
    half = NormalDist().inv_cdf((1 + confidence) / 2) * scatter
    return Estimate.from_logs(
        centre, centre - half, centre + half, confidence=confidence, n=len(ours), scatter=scatter
    )


def _told(question: str, verdict: Verdict, *, yes: bool, no: bool) -> tuple[Verdict, str]:
    answer = "yes" if yes else "no" if no else "it cannot be told"
    return verdict, f"{question} on this machine? {answer.capitalize()}: {verdict}"


def _estimated(estimate: Callable[[], Estimate]) -> Estimate:
    try:
        return estimate()
    except SampleError as error:
        return Estimate.no_answer(f"too few epochs, or none that counts: {error}")


def _of_one_pair(verdict: Verdict) -> Verdict:
    """Return what one pair of runs may say: it may condemn, but its noise is nobody's fault."""
    if verdict.outcome is not Outcome.INCONCLUSIVE:
        return verdict
    reason = f"{verdict.reason}; one pair of runs, test_amp_convergence has several"
    return replace(verdict, outcome=Outcome.NOT_GATED, threshold="", reason=reason)
