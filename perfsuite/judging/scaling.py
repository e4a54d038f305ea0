"""Scaling: what N ranks do beside one alone, which took turns with them. Pure functions."""

from dataclasses import dataclass, replace
from statistics import median

from perfsuite.judging.estimates import Estimate
from perfsuite.judging.gates import Verdict, at_least
from perfsuite.judging.interleaving import Duet


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """What is kept of one way to scale; a list of them is kept as "scaling".

    Attributes:
        how: "weak", each of the ranks with as large a batch as one alone, or "strong", all of them
            together.
        ranks: how many they are.
        samples: of the batch of one alone.
        alone_s: seconds a step of one alone, the median.
        step_s: of all ranks.
        efficiency: 1 where N ranks do N times as much.
        low: the lower end of its interval.
        high: the upper end.
        why_not: why it is not known; then nothing else is but `how` and `ranks`.
    """

    how: str
    ranks: int
    samples: int | None = None
    alone_s: float | None = None
    step_s: float | None = None
    efficiency: float | None = None
    low: float | None = None
    high: float | None = None
    why_not: str = ""


def efficiency(turns: Duet, *, parts: int, confidence: float) -> Estimate:
    """Return the efficiency of all ranks, arm B, beside one alone, arm A.

    The batch of one is as large as those of `parts` ranks together: 1 for weak scaling
    (Gustafson, Communications of the ACM 31, 1988), all for strong scaling (Amdahl, AFIPS 1967).
    """
    ratio = turns.ratio("A", over="B", confidence=confidence)
    if ratio.unknown:
        return ratio
    ends = {name: getattr(ratio, name) / parts for name in ("value", "low", "high")}
    return replace(ratio, **ends)


def judge_scaling(
    how: str, turns: Duet, minimum: float | None, *, parts: int, confidence: float
) -> Verdict:
    """Judge an efficiency that must not fall below `minimum`; `how` is "weak" or "strong"."""
    found = efficiency(turns, parts=parts, confidence=confidence)
    return at_least(f"{how}_scaling", found, minimum, unit=" of ideal")


def scaling_of(
    how: str, turns: Duet, *, ranks: int, parts: int, samples: int, confidence: float
) -> Scaling:
    """Return what is kept of turns of one alone, arm A, and all ranks, arm B."""
    found = efficiency(turns, parts=parts, confidence=confidence)
    if found.unknown:
        return Scaling(how=how, ranks=ranks, why_not=found.unknown)
    alone_s, step_s = (median(turns.times_s(letter)) for letter in "AB")
    return Scaling(
        how=how,
        ranks=ranks,
        samples=samples,
        alone_s=alone_s,
        step_s=step_s,
        efficiency=found.value,
        low=found.low,
        high=found.high,
    )
