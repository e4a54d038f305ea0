"""What a lever gains: a ratio of rates with its interval, and in words. Pure functions."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean

from perfsuite.judging.estimates import Estimate
from perfsuite.judging.gates import Outcome, Verdict, at_most, missing, not_gated
from perfsuite.judging.interleaving import Duet

FASTER, SLOWER, SAME = "faster", "slower", "no change"
UNRESOLVED, LEFT_OUT = "cannot be told", "left out"
NO_MEMORY = "not enough memory"
LEAST = 0.01
"""Of a change that is worth a lever, as a share."""
MOST_UNCHANGED = 0.03
"""How far from 1 an interval may reach that is no change, as a share."""
MOST_APART = 0.1
"""By how much weights may move farther than by the plain step, or less far, as a share. Where to is
not compared: of rounding alone Adam makes whole steps."""
NOISE_TIMES = 4.0
"""A lever's difference from the plain step counts where it is more than so many times the largest
that the plain step shows from itself, from perturbed weights, in some trials. Of noise alone one of
500 is that far beyond the largest of five trials."""
MOST_NOISE = 0.5
"""A larger difference is never noise: weights that do not move differ by 1."""


def gain_of(turns: Duet, *, confidence: float, times: float = 1.0) -> Estimate:
    """Return how many times more samples a second the second arm takes, by steps in turns.

    `times` is how many times as many samples its batches have.
    """
    ratio = turns.ratio("A", over="B", confidence=confidence)
    if ratio.unknown:
        return ratio
    ends = {name: getattr(ratio, name) * times for name in ("value", "low", "high")}
    return replace(ratio, **ends)


def word_of(gain: Estimate) -> str:
    """Return what a gain is: a change is LEAST or more, its interval on one side of 1.

    It is none where the interval lies within MOST_UNCHANGED of 1, and else cannot be told.
    """
    if gain.low > 1 and gain.value >= 1 + LEAST:
        return FASTER
    if gain.high < 1 and gain.value <= 1 - LEAST:
        return SLOWER
    most = 1 + MOST_UNCHANGED
    return SAME if 1 / most <= gain.low and gain.high <= most else UNRESOLVED


def told_gain(gain: Estimate) -> str:
    """Return a gain with its interval, after its word unless it is one."""
    if gain.unknown:
        return f"unknown: {gain.unknown}"
    word, figure = word_of(gain), f"{gain.value:.2f}x [{gain.low:.2f}, {gain.high:.2f}]"
    return figure if word == FASTER else f"{word}: {figure}"


@dataclass(kw_only=True)
class LeverTried:
    """What came of a lever; of a ladder's foot there is no gain.

    Attributes:
        against: the name of what it took turns with.
        precision: of its step.
        samples: in a batch.
        gain: in samples a second.
        memory_bytes: of a step: the device's peak, or else what backward keeps.
        bound: "host" or "device", where they are not one.
        loss_apart: by which share the losses differ.
        slower_by: operators that account for a loss of speed.
        left_out: why there is no gain.
    """

    name: str
    against: str = ""
    precision: str = ""
    samples: int = 0
    step_s: float | None = None
    samples_per_s: float | None = None
    gain: Estimate | None = None
    share_of_ceiling: float | None = None
    memory_bytes: int | None = None
    bound: str = ""
    loss_apart: str = ""
    slower_by: list[str] = field(default_factory=list)
    left_out: str = ""

    @property
    def word(self) -> str:
        """What it did, or that it was left out; nothing of a ladder's foot."""
        if self.left_out:
            return LEFT_OUT
        return "" if self.gain is None else word_of(self.gain)

    @property
    def surely_gained(self) -> float:
        """How many times faster it is, 1 where that is not sure."""
        return self.gain.value if self.gain is not None and self.word == FASTER else 1.0

    def __str__(self) -> str:
        if self.left_out or self.samples_per_s is None:
            return f"{self.name}: {LEFT_OUT}: {self.left_out}"
        told = [] if self.gain is None else [told_gain(self.gain)]
        told.append(f"{self.samples_per_s:,.4g} samples/s")
        if self.share_of_ceiling is not None:
            told.append(f"{self.share_of_ceiling:.1%} of the ceiling")
        if self.memory_bytes is not None:
            told.append(f"{self.memory_bytes / 1e6:,.4g} MB")
        told += [f"{self.bound}-bound"] * bool(self.bound)
        return "\n    ".join([f"{self.name}: {', '.join(told)}", *self.slower_by])


def all_without_memory(tried: Sequence[LeverTried]) -> list[Verdict]:
    """Return a FAIL where no lever has a gain, and one of them for want of memory."""
    without = [each for each in tried if each.left_out.startswith(NO_MEMORY)]
    if not without or any(each.gain is not None for each in tried):
        return []
    remedy = "each takes turns with another step, and both need room; take a smaller batch"
    return [missing("levers", f"{without[0].name}: {without[0].left_out}", remedy)]


def losses_alike(
    gate: str,
    losses: Sequence[float],
    plain: Sequence[float],
    margin: float,
    perturbed: Sequence[Sequence[float]] = (),
) -> Verdict:
    """Judge the losses of some steps, which have to be those of the step without the lever.

    The first loss, which is of equal weights, and the mean of all may be off by a share `margin`.
    Single losses after the first are not compared: of rounding alone Adam makes whole steps.
    `perturbed` are the plain step's losses from perturbed weights, a row each time: where their
    means scatter nearly as much, the mean tells nothing.
    """
    found, wanted = ((each[0], fmean(each)) for each in (losses, plain))
    first, mean = (_apart(one, other) for one, other in zip(found, wanted, strict=True))
    verdict = at_most(gate, Estimate.exact(_worst([first, mean])), margin, unit="")
    if not first <= margin:
        return verdict
    return _unless_noise(verdict, mean, [_apart(fmean(each), wanted[1]) for each in perturbed])


def weights_alike(
    gate: str, moved: float, plain: float, perturbed: Sequence[float] = ()
) -> Verdict:
    """Judge how far some steps moved weights, which has to be as far as without the lever.

    `perturbed` is how far the plain step moves them, each time from other perturbed weights.
    """
    apart = _apart(moved, plain)
    verdict = at_most(gate, Estimate.exact(apart), MOST_APART, unit="")
    return _unless_noise(verdict, apart, [_apart(each, plain) for each in perturbed])


def _unless_noise(verdict: Verdict, apart: float, itself: Sequence[float]) -> Verdict:
    """Return what is judged, but NOT GATED where the plain step differs so from itself."""
    if verdict.outcome is not Outcome.FAIL or not itself:
        return verdict
    noise = _worst(itself)
    if not apart <= MOST_NOISE or apart > NOISE_TIMES * noise:
        return verdict
    told = (
        f"the step differs by {noise:.3f} from itself where its weights are perturbed by rounding"
    )
    return not_gated(verdict.gate, verdict.figure, f"{told}: too noisy to judge by")


def _worst(apart: Sequence[float]) -> float:
    """Return the largest share; a NaN would hide behind any number that comes before it."""
    return max(apart, key=lambda each: (math.isnan(each), each))


def _apart(one: float, other: float) -> float:
    if one == other:
        return 0.0
    return abs(one - other) / abs(other) if other else math.inf
