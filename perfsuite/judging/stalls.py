"""The whole of the time: stalls, and the mean of all steps beside the typical one.

A stall in every twentieth step moves no median, and a training has to wait for it all the same. So
the means of two arms that took turns are held against each other, too: what stalls of the machine
add, they add to both. The mean may turn a verdict red, and never green.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median

import numpy as np

from perfsuite.judging.blocks import SLOW, Block
from perfsuite.judging.estimates import Estimate, SampleError
from perfsuite.judging.gates import Outcome, Verdict, at_least, at_most
from perfsuite.judging.interleaving import Duet, pooled_ratio

FAR_OUT = 3.0
"""A stall lies so many interquartile ranges above the upper quartile of typical steps (Tukey,
Exploratory Data Analysis, 1977, section 2D), so that on a busy machine not all is one."""
LEAST_SHARE = 0.5
"""Of a change of the mean; where stalls account for less they are not its reason."""
GROUPS = 12
"""Of neighbouring quads of one process, for its mean: in most of them there should be a stall."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stalls:
    """What an arm's stalls take of its time.

    Attributes:
        share: of its steps that are stalls.
        times: how many times longer than a typical step they take on average; 1 without any.
        typical_s: the median step.
        mean_s: the mean step.
        lost_s: what stalls take beyond a typical step, a step of all steps.
    """

    share: float
    times: float
    typical_s: float
    mean_s: float
    lost_s: float

    @property
    def of_time(self) -> float:
        """The share of all time that is lost in stalls."""
        return self.lost_s / self.mean_s

    def __str__(self) -> str:
        if not self.share:
            return "none"
        times = f"{self.times:.2g}" if self.times < 99.5 else f"{self.times:.0f}"
        return f"{self.share * 100:.2g}% of steps take {times} times as long"


def stalls_in(blocks: Sequence[Block]) -> Stalls | None:
    """Return an arm's stalls; None where its blocks do not tell steps apart."""
    typical = [block.typical_s for block in blocks if block.typical_s is not None]
    if not typical or len(typical) < len(blocks):
        return None
    low, high = np.quantile(typical, [0.25, 0.75])
    typical_s = median(typical)
    limit_s = max(SLOW * typical_s, float(high + FAR_OUT * (high - low)))
    found = [slow_s for block in blocks for slow_s in block.slow_s if slow_s > limit_s]
    steps = sum(block.steps for block in blocks)
    return Stalls(
        share=len(found) / steps,
        times=fmean(found) / typical_s if found else 1.0,
        typical_s=typical_s,
        mean_s=sum(block.steps * block.step_s for block in blocks) / steps,
        lost_s=sum(slow_s - typical_s for slow_s in found) / steps,
    )


def told(
    before: Sequence[Block], after: Sequence[Block], *, name: str = "before", apart: bool = False
) -> str:
    """Return "stalls: ..." where they are why the mean step takes longer after, else nothing.

    `name` is that of the other side. Where the two are to differ, as precisions are, they are
    `apart`: only what is beyond a typical step is compared, in typical steps.
    """
    then, now = stalls_in(before), stalls_in(after)
    if then is None or now is None:
        return ""
    units = (then.typical_s, now.typical_s) if apart else (1.0, 1.0)
    change = now.mean_s / units[1] - then.mean_s / units[0]
    lost = now.lost_s / units[1] - then.lost_s / units[0]
    theirs = change > 0 and lost >= LEAST_SHARE * change
    return f"stalls: {now} ({name}: {then})" if theirs else ""


def mean_s(blocks: Sequence[Block]) -> float:
    """Return the mean of all steps, for blocks of equally many."""
    return fmean(block.step_s for block in blocks)


def mean_ratio_of(turns: Duet, letter: str, *, over: str, confidence: float) -> Estimate:
    """Return how many times longer an arm's mean step takes, in one process.

    One observation is a group of neighbouring quads, so that it holds several stalls.
    """
    quads, sifted = turns.sifted.used, turns.sifted
    if not sifted.decides:
        return Estimate.no_answer("the device was throttled most of the time")
    count = min(GROUPS, len(quads))
    groups = [
        Duet(quads[len(quads) * each // count : len(quads) * (each + 1) // count])
        for each in range(count)
    ]
    ratios = [mean_s(group.blocks_of(letter)) / mean_s(group.blocks_of(over)) for group in groups]
    try:
        return pooled_ratio(ratios, confidence=confidence)
    except SampleError as error:
        return Estimate.no_answer(str(error))


def with_mean(typical: Verdict, mean: Verdict, *, beyond: bool, stalls: str) -> Verdict:
    """Return the verdict on both, a typical step and the mean step.

    The mean may condemn by itself. Where `stalls` bring its best estimate `beyond` what is
    required, but not yet all of its interval, the verdict stays open.
    """
    if mean.outcome is Outcome.FAIL and (stalls or typical.outcome is not Outcome.FAIL):
        parts = (stalls, "this is the mean step", f"a typical one {typical.figure}", mean.reason)
        return replace(mean, reason="; ".join(filter(None, parts)))
    if typical.outcome is Outcome.FAIL and stalls:
        return replace(typical, reason="; ".join(filter(None, (stalls, typical.reason))))
    if typical.outcome is Outcome.PASS and beyond and stalls:
        return replace(
            mean,
            outcome=Outcome.INCONCLUSIVE,
            word="",
            reason=f"{stalls}; this is the mean step, and they are too few to say;"
            f" give it more --perf-budget; a typical one {typical.figure}",
        )
    return typical


def judge_speedup(
    gate: str, turns: Duet, minimum: float | None, *, confidence: float, name: str = "A"
) -> Verdict:
    """Judge how many times faster the second arm is than the first, called `name`.

    The typical step has to be so much faster, and so has the mean.
    """
    ratio = turns.ratio("A", over="B", confidence=confidence)
    mean = mean_ratio_of(turns, "A", over="B", confidence=confidence)
    stalls = told(turns.blocks_of("A"), turns.blocks_of("B"), name=name, apart=True)
    typical = at_least(gate, ratio, minimum)
    if minimum is None:
        seen = stalls and mean.high < ratio.value
        said = f"{typical.reason}; mean step {mean.value:.3f}x; {stalls}"
        return replace(typical, reason=said) if seen else typical
    beyond = mean.value < minimum
    return with_mean(typical, at_least(gate, mean, minimum), beyond=beyond, stalls=stalls)


def judge_stalls(turns: Duet, maximum: float | None, *, confidence: float) -> Verdict:
    """Judge how many times longer stalls make the second arm's mean step, beside the first's."""
    mean = mean_ratio_of(turns, "B", over="A", confidence=confidence)
    found = [stalls_in(turns.blocks_of(letter)) for letter in "AB"]
    if found[0] is None or found[1] is None:
        mean = Estimate.no_answer("its steps were not told apart")
    else:  # what a typical step takes is no stall
        typical = found[1].typical_s / found[0].typical_s
        ends = {name: getattr(mean, name) / typical for name in ("value", "low", "high")}
        mean = replace(mean, **ends)
    return at_most("stalls", mean, maximum)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How an arm went on for hundreds of steps; seconds a step."""

    steps: int
    mean_s: float
    p50_s: float
    p95_s: float
    p99_s: float
    stalls: Stalls | None

    def __str__(self) -> str:
        ms = [f"{1e3 * s:.4g}" for s in (self.mean_s, self.p50_s, self.p95_s, self.p99_s)]
        head = f"{self.steps} steps of {ms[0]} ms on average, p50 {ms[1]}, p95 {ms[2]}"
        head = f"{head} and p99 {ms[3]} ms"
        if self.stalls is None:
            return head
        lost = f"{self.stalls.of_time:.1%} of the time is lost in stalls: {self.stalls}"
        return f"{head}; {lost if self.stalls.share else 'no stalls'}"


def pace_of(steps_s: Sequence[float], blocks: Sequence[Block]) -> Pace:
    """Return an arm's pace from each of its steps, and from its blocks."""
    p50_s, p95_s, p99_s = np.quantile(steps_s, [0.5, 0.95, 0.99]).tolist()
    return Pace(
        steps=len(steps_s),
        mean_s=mean_s(blocks),
        p50_s=p50_s,
        p95_s=p95_s,
        p99_s=p99_s,
        stalls=stalls_in(blocks),
    )
