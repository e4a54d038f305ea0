"""Estimates from timings: pure functions over numbers, without torch and without pytest."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.special import stdtrit

__all__ = [
    "MIN_PAIRS",
    "Estimate",
    "SampleError",
    "is_steady",
    "mean_ratio",
    "median_s",
    "paired_ratio",
    "predicted_ratio",
]

MIN_PAIRS = 8
"""Fewer pairs cannot carry a 99 % signed-rank interval: 2 / 2**8 = 0.8 %."""


class SampleError(ValueError):
    """Numbers from which nothing can be estimated: empty, not finite, not positive, unpaired."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A figure with its two-sided interval.

    Attributes:
        value: the point estimate; ``low`` and ``high`` bound it.
        confidence: of the interval, 1.0 for a figure that was counted and not sampled.
        n: how many independent observations it rests on.
    """

    value: float
    low: float
    high: float
    confidence: float
    n: int

    @classmethod
    def exact(cls, value: float) -> "Estimate":
        """Return a figure without sampling error, such as a number of bytes."""
        return cls(value=value, low=value, high=value, confidence=1.0, n=1)


def _positive(name: str, values: Sequence[float], *, least: int = 1) -> list[float]:
    if len(values) < least:
        raise SampleError(f"{name}: {len(values)} values, need at least {least}")
    for index, value in enumerate(values):
        if not (math.isfinite(value) and value > 0):
            raise SampleError(f"{name}[{index}] = {value!r}: must be finite and positive")
    return list(values)


def _check_confidence(confidence: float) -> None:
    if not 0.5 <= confidence < 1:
        raise SampleError(f"confidence = {confidence!r}: must be at least 0.5 and below 1")


def median_s(seconds: Sequence[float]) -> float:
    """Return the median of positive durations.

    Raises:
        SampleError: there are none, or one is not finite and positive.
    """
    return statistics.median(_positive("seconds", seconds))


def is_steady(seconds: Sequence[float], *, window: int, tolerance: float) -> bool:
    """Tell whether the last `window` durations agree with the `window` before them.

    They agree when the ratio of their medians is within `tolerance` of one. Fewer than
    two windows are never steady.
    """
    if len(seconds) < 2 * window:
        return False
    before = median_s(seconds[-2 * window : -window])
    after = median_s(seconds[-window:])
    return abs(math.log(after / before)) <= math.log1p(tolerance)


def paired_ratio(
    numerators: Sequence[float], denominators: Sequence[float], *, confidence: float = 0.99
) -> Estimate:
    """Return the ratio of paired positive measurements with a distribution-free interval.

    The estimate is the Hodges-Lehmann median of the log ratios, so that a stall of the
    machine in one pair moves it no more than any other pair does; the interval inverts
    Wilcoxon's signed-rank test (Hollander, Wolfe and Chicken, Nonparametric Statistical
    Methods, 3rd ed., section 3.3).

    Raises:
        SampleError: fewer than MIN_PAIRS pairs, lengths that differ, or a value that is not
            finite and positive.
    """
    _check_confidence(confidence)
    top = _positive("numerators", numerators, least=MIN_PAIRS)
    bottom = _positive("denominators", denominators, least=MIN_PAIRS)
    if len(top) != len(bottom):
        raise SampleError(f"{len(top)} numerators for {len(bottom)} denominators: not pairs")
    logs = [math.log(a / b) for a, b in zip(top, bottom, strict=True)]
    n = len(logs)
    walsh = sorted((logs[i] + logs[j]) / 2 for i in range(n) for j in range(i, n))
    z = statistics.NormalDist().inv_cdf((1 + confidence) / 2)
    spread = math.sqrt(n * (n + 1) * (2 * n + 1) / 24)
    skip = max(0, math.floor(n * (n + 1) / 4 - z * spread))
    return Estimate(
        value=math.exp(statistics.median(walsh)),
        low=math.exp(walsh[skip]),
        high=math.exp(walsh[-1 - skip]),
        confidence=confidence,
        n=n,
    )


def mean_ratio(
    numerators: Sequence[float], denominators: Sequence[float], *, confidence: float
) -> Estimate:
    """Return the geometric mean of paired ratios with Student's t interval.

    For few, well-behaved pairs, such as the mean losses of trainings paired by seed. The
    interval at ``1 - 2 * alpha`` is the one of two one-sided tests at ``alpha``
    (Schuirmann, J. Pharmacokinet. Biopharm. 15, 1987).

    Raises:
        SampleError: fewer than two pairs, lengths that differ, or a value that is not finite
            and positive.
    """
    _check_confidence(confidence)
    top = _positive("numerators", numerators, least=2)
    bottom = _positive("denominators", denominators, least=2)
    if len(top) != len(bottom):
        raise SampleError(f"{len(top)} numerators for {len(bottom)} denominators: not pairs")
    logs = [math.log(a / b) for a, b in zip(top, bottom, strict=True)]
    n = len(logs)
    centre = statistics.fmean(logs)
    t = float(stdtrit(n - 1, (1 + confidence) / 2))
    half = t * statistics.stdev(logs) / math.sqrt(n)
    return Estimate(
        value=math.exp(centre),
        low=math.exp(centre - half),
        high=math.exp(centre + half),
        confidence=confidence,
        n=n,
    )


def predicted_ratio(
    now: float, runs: Sequence[float], *, assumed_spread: float, confidence: float = 0.99
) -> Estimate:
    """Return `now` over the runs' geometric mean, with the interval a further run would have.

    The process is the unit of replication, so the interval is Student's prediction interval
    for one more run (Hahn and Meeker, Statistical Intervals, section 4.7): its width comes
    from the spread *between* the runs. With fewer than three runs there is no spread worth
    the name, so the larger of theirs and `assumed_spread` (a standard deviation of the log)
    takes its place.

    Raises:
        SampleError: no runs, a value that is not finite and positive, or a negative spread.
    """
    _check_confidence(confidence)
    if not (math.isfinite(assumed_spread) and assumed_spread >= 0):
        raise SampleError(f"assumed_spread = {assumed_spread!r}: must be finite and not negative")
    (current,) = _positive("now", [now])
    logs = [math.log(run) for run in _positive("runs", runs)]
    n = len(logs)
    shift = math.log(current) - statistics.fmean(logs)
    observed = statistics.stdev(logs) if n > 1 else 0.0
    if n >= 3:
        quantile, spread = float(stdtrit(n - 1, (1 + confidence) / 2)), observed
    else:
        quantile = statistics.NormalDist().inv_cdf((1 + confidence) / 2)
        spread = max(observed, assumed_spread)
    half = quantile * spread * math.sqrt(1 + 1 / n)
    return Estimate(
        value=math.exp(shift),
        low=math.exp(shift - half),
        high=math.exp(shift + half),
        confidence=confidence,
        n=n,
    )
