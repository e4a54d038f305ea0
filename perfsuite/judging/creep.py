"""Creep: what many accepted changes add up to, each too small to be refused. Pure functions."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from scipy.special import stdtrit

from perfsuite.judging.estimates import Estimate
from perfsuite.judging.gates import Outcome, Verdict, not_gated, not_worse
from perfsuite.judging.spreads import Spread


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptedFigure:
    """A figure as it was when it became the baseline.

    Attributes:
        when: date and commit, as they are shown.
        runs: how many were promoted; the value is their geometric mean.
        measured: what was measured and how; of two figures where it differs, neither is the
            other's change.
        software: version, shown where it changed.
    """

    when: str
    value: float
    runs: int
    measured: str
    software: str


def judge_creep(
    gate: str,
    accepted: Sequence[AcceptedFigure],
    *,
    margin: float,
    better: str,
    spread: Spread,
    confidence: float,
) -> Verdict | None:
    """Judge the product of accepted changes, the oldest first; None where nothing was replaced.

    A change counts if both its ends measured the same. Changes in a row telescope, so that only
    the scatter of their first and last figure is left, each a mean of its runs. `confidence` is
    that of either end of the interval.
    """
    if len(accepted) < 2:
        return None
    stretches = [[accepted[0]]]
    told = []
    for then, now in pairwise(accepted):
        if then.measured != now.measured:
            stretches.append([now])
            told.append(f"{now.when} measured differently, not counted")
            continue
        stretches[-1].append(now)
        moved = f" ({then.software} -> {now.software})" * (then.software != now.software)
        told.append(f"{now.when} {now.value / then.value - 1:+.1%}{moved}")
    history = f"accepted since {accepted[0].when}: {', '.join(told)}"
    ends = [(each[0], each[-1]) for each in stretches if len(each) > 1]
    if not ends:
        return not_gated(gate, "no change that can be counted", history)
    total = sum(math.log(last.value / first.value) for first, last in ends)
    variance = spread.deviation**2 * sum(1 / first.runs + 1 / last.runs for first, last in ends)
    quantile = statistics.NormalDist().inv_cdf(confidence)
    if math.isfinite(spread.degrees):
        quantile = float(stdtrit(spread.degrees, confidence))
    half = quantile * math.sqrt(variance)
    estimate = Estimate.from_logs(
        total,
        total - half,
        total + half,
        confidence=2 * confidence - 1,
        n=sum(each.runs for each in accepted),
        scatter=spread.deviation,
    )
    verdict = not_worse(gate, estimate, margin, better=better, runs=3)
    reason = "" if verdict.outcome is Outcome.PASS else history
    if verdict.outcome is Outcome.INCONCLUSIVE:
        remedy = "promote more runs, or let `since` of table [creep] name a later commit"
        reason = f"{verdict.reason}; {remedy}; {history}"
    return replace(
        verdict, threshold=f"accepted changes of at most {margin:.1%} in all", reason=reason
    )
