"""Times of ranks, each by itself and all together: who is slow, and what is waited for.

By itself a rank takes its steps while nothing that it tells the others goes anywhere: that is its
own time, in which it waits for nobody. Pure functions.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median

import numpy as np

from perfsuite.judging.estimates import Estimate, Floats, SampleError, paired_ratio
from perfsuite.judging.gates import Outcome, Verdict, at_most
from perfsuite.judging.interleaving import Duet
from perfsuite.judging.stopping import at_each_look, first_look

SHOWN = 3
"""Slow ranks that are named; more are counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankTime:
    """One rank's own time.

    Attributes:
        own_s: seconds a step by itself, the median.
        ratio: how many times as long as the median of the others it takes.
        low: the lower end of its interval; None where rounds were too few to tell.
        high: the upper end.
    """

    rank: int
    own_s: float
    ratio: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RankTimes:
    """What is kept of ranks' own times, and of their communication; seconds a step.

    Attributes:
        ranks: each rank's own time, by rank.
        step_s: all together, the median.
        compute_s: the slowest rank by itself, the median.
        exposed_s: what a step takes beyond that, since ranks wait for each other.
        exposed_low_s: the lower end of its interval, below zero where noise is larger than it.
        exposed_high_s: the upper end.
        comm_s: what its collectives take, one after the other and without any computation; None
            where they cannot be repeated.
        overlap: the share of that which is hidden behind computation; None where it is unknown.
    """

    ranks: tuple[RankTime, ...]
    step_s: float
    compute_s: float
    exposed_s: float
    exposed_low_s: float
    exposed_high_s: float
    comm_s: float | None = None
    overlap: float | None = None

    def __str__(self) -> str:
        step_ms, compute_ms, exposed_ms = (
            f"{1e3 * s:.4g} ms" for s in (self.step_s, self.compute_s, self.exposed_s)
        )
        said = f"a step of {step_ms}: {compute_ms} of the slowest rank's own, {exposed_ms} exposed"
        if self.comm_s is None:
            return said
        hidden = "" if self.overlap is None else f", of which {self.overlap:.0%} is hidden"
        return f"{said}; communication alone takes {1e3 * self.comm_s:.4g} ms{hidden}"


def rounds_of(turns: Duet, letter: str) -> Floats:
    """Return seconds a step of an arm, by round of turns and by rank.

    One round is a quad, whose two blocks of the arm are one observation. Those that were throttled
    are among them: a rank whose device is held back is slow.
    """
    return np.array(
        [
            [fmean(each) for each in zip(*(b.ranks_s for b in quad.of(letter)), strict=True)]
            for quad in turns.quads
        ]
    )


def median_of_others(rounds: Floats) -> Floats:
    """Return for each round and rank the median of all other ranks, of which there is one or more.

    By the order of the round in which the rank's own place is left out.
    """
    ordered = np.sort(rounds, axis=1)
    places = np.argsort(np.argsort(rounds, axis=1, kind="stable"), axis=1)
    others = rounds.shape[1] - 1
    middle = ((others - 1) // 2, others // 2)
    low, high = (np.take_along_axis(ordered, at + (places <= at), axis=1) for at in middle)
    return (low + high) / 2


def beside_others(rounds: Floats, *, confidence: float) -> list[Estimate]:
    """Return how many times as long as the others' median each rank takes.

    `confidence` is that no interval of any rank lies above what is true, after sampling by looks:
    each of N ranks may err 1/N of that (Bonferroni). All ranks were timed at the same time, so that
    what slows the machine slows both sides of a ratio.
    """
    count, ranks = rounds.shape
    error = (1 - confidence) / ranks
    if count < (least := first_look(error)):
        why = f"{ranks} ranks need {least} rounds, there were {count}: give it more --perf-budget"
        return [Estimate.no_answer(why)] * ranks
    each = at_each_look(1 - 2 * error, count)
    others = median_of_others(rounds)
    found = []
    for own, beside in zip(rounds.T, others.T, strict=True):
        try:
            found.append(paired_ratio(own.tolist(), beside.tolist(), confidence=each))
        except SampleError as error_of:
            found.append(Estimate.no_answer(str(error_of)))
    return found


def judge_slow_ranks(turns: Duet, letter: str, margin: float, *, confidence: float) -> Verdict:
    """Judge that no rank by itself takes longer than the others by more than `margin`.

    `letter` is the arm of the blocks that ranks took by themselves.
    """
    estimates = beside_others(rounds_of(turns, letter), confidence=confidence)
    verdicts = [at_most("slow_ranks", each, 1 + margin) for each in estimates]
    outcome = min((verdict.outcome for verdict in verdicts), key=lambda each: each.rank)
    # The slowest first: of a fault all that are slow, or else the one that comes closest.
    ordered = sorted(range(len(estimates)), key=lambda rank: -estimates[rank].high)
    told = [rank for rank in ordered if verdicts[rank].outcome is outcome]
    shown = told[:SHOWN] if outcome is Outcome.FAIL else told[:1]
    figure = "; ".join(f"rank {rank} takes {verdicts[rank].figure}" for rank in shown)
    if outcome is Outcome.FAIL and len(told) > SHOWN:
        figure = f"{figure} and {len(told) - SHOWN} more ranks"
    return replace(
        verdicts[told[0]],
        figure="unknown" if estimates[told[0]].unknown else figure,
        threshold=f"at most {1 + margin:g}x of the other ranks' own time",
    )


def exposed_share(turns: Duet, *, confidence: float) -> Estimate:
    """Return the share of a step that ranks wait: all together is arm A, by themselves arm B.

    What a step takes longer than the slowest rank takes by itself: communication that no
    computation hides, and waiting where now one rank and now another is late. Noise may bring it
    below zero.
    """
    ratio = turns.ratio("B", over="A", confidence=confidence)
    if ratio.unknown:
        return ratio
    return replace(ratio, value=1 - ratio.value, low=1 - ratio.high, high=1 - ratio.low)


def overlap(share: Estimate, step_s: float, comm_s: float | None) -> float | None:
    """Return the share of communication that computation hides, from 0 to 1.

    `comm_s` are the collectives of a step alone. None where nothing is told, or where that is less
    than what the exposed share is uncertain by.
    """
    if share.unknown or comm_s is None or comm_s / step_s <= share.high - share.low:
        return None
    return min(1.0, max(0.0, 1 - share.value * step_s / comm_s))


def rank_times(turns: Duet, comm_s: float | None, *, confidence: float) -> RankTimes | None:
    """Return what is kept of turns of all together, arm A, and each by itself, arm B.

    None where throttling left too little.
    """
    share = exposed_share(turns, confidence=confidence)
    if share.unknown:
        return None
    rounds = rounds_of(turns, "B")
    step_s, compute_s = (median(turns.times_s(letter)) for letter in "AB")
    return RankTimes(
        ranks=_each(rounds, beside_others(rounds, confidence=confidence)),
        step_s=step_s,
        compute_s=compute_s,
        exposed_s=share.value * step_s,
        exposed_low_s=share.low * step_s,
        exposed_high_s=share.high * step_s,
        comm_s=comm_s,
        overlap=overlap(share, step_s, comm_s),
    )


def _each(rounds: Floats, estimates: Sequence[Estimate]) -> tuple[RankTime, ...]:
    ratios = np.median(rounds / median_of_others(rounds), axis=0)
    return tuple(
        RankTime(
            rank=rank,
            own_s=float(np.median(rounds[:, rank])),
            ratio=float(ratios[rank]) if each.unknown else each.value,
            low=None if each.unknown else each.low,
            high=None if each.unknown else each.high,
        )
        for rank, each in enumerate(estimates)
    )
