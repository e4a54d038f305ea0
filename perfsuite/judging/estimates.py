"""Estimates from timings: pure functions over numbers, without torch and without pytest.

Each raises `SampleError` for values that are too few, unpaired, or not finite and positive.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, stdtrit  # scipy.stats takes a second to import

Floats = NDArray[np.float64]

HIDDEN = 3.5
"""A correlation of neighbours below this over n cannot be told from none by n observations."""


class SampleError(ValueError):
    """Numbers from which nothing can be estimated; the message names the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A figure with its two-sided interval.

    Attributes:
        confidence: 1.0 for a figure that was counted and not sampled.
        n: how many observations it rests on.
        scatter: of one observation, as a standard deviation of its logarithm.
        unknown: why nothing can be said, where that is so; then there is no value.
    """

    value: float
    low: float
    high: float
    confidence: float
    n: int
    scatter: float = 0.0
    unknown: str = ""

    @classmethod
    def exact(cls, value: float) -> "Estimate":
        """Return a figure without sampling error, such as a number of bytes."""
        return cls(value=value, low=value, high=value, confidence=1.0, n=1)

    @classmethod
    def no_answer(cls, why: str) -> "Estimate":
        """Return a figure of which nothing is known, for the reason given."""
        return cls(value=math.nan, low=0.0, high=math.inf, confidence=0.0, n=0, unknown=why)

    @classmethod
    def from_logs(
        cls, centre: float, low: float, high: float, *, confidence: float, n: int, scatter: float
    ) -> "Estimate":
        """Return a ratio from its logarithm and the ends of its interval; too large is inf."""
        with np.errstate(over="ignore"):
            value, low, high = np.exp([centre, low, high]).tolist()
        return cls(value=value, low=low, high=high, confidence=confidence, n=n, scatter=scatter)


def positive(name: str, values: Sequence[float], *, least: int = 1) -> list[float]:
    """Return values that are finite and positive, at least so many; or else raise SampleError."""
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
    """Return the median of positive durations."""
    return statistics.median(positive("seconds", seconds))


def median_interval(seconds: Sequence[float], *, confidence: float = 0.99) -> Estimate:
    """Return the median of positive durations with its exact interval.

    The ends are two of the durations, by the sign test, whatever their distribution (Conover,
    Practical Nonparametric Statistics, 3rd ed., section 3.2). They are taken as independent,
    and of one process. Too few of them give an interval from 0 to infinity.
    """
    _check_confidence(confidence)
    ordered = sorted(positive("seconds", seconds))
    n = len(ordered)
    outside = int(np.searchsorted(bdtr(np.arange(n), n, 0.5), (1 - confidence) / 2)) - 1
    return Estimate(
        value=statistics.median(ordered),
        low=ordered[outside] if outside >= 0 else 0.0,
        high=ordered[n - 1 - outside] if outside >= 0 else math.inf,
        confidence=confidence,
        n=n,
    )


def is_steady(seconds: Sequence[float], *, window: int, tolerance: float) -> bool:
    """Tell whether the last `window` durations lie in the range of those before, by a tolerance.

    Noise alone seldom brings a new extreme, and a program that is still warming up always does.
    `window` durations alone are never steady.
    """
    if len(seconds) <= window:
        return False
    before, last = seconds[:-window], seconds[-window:]
    allowed = 1 + tolerance
    return min(before) <= min(last) * allowed and max(last) <= max(before) * allowed


def paired_ratio(
    numerators: Sequence[float], denominators: Sequence[float], *, confidence: float = 0.99
) -> Estimate:
    """Return the ratio of paired positive measurements, in the order in which they were made.

    The estimate is the Hodges-Lehmann median of the log ratios, which a stall of the machine
    in one pair moves no more than any other pair does. The interval inverts Wilcoxon's
    signed-rank test, at its exact quantile (Hollander, Wolfe and Chicken, Nonparametric
    Statistical Methods, 3rd ed., section 3.3): it assumes symmetry, which pairs in balanced
    order have where both sides are the same, and no distribution. Where neighbours resemble
    each other it is widened as for fewer independent pairs (`_dependence`).
    """
    _check_confidence(confidence)
    logs = np.array(_log_ratios(numerators, denominators, least=_least_pairs(confidence)))
    (centre,), (low,), (high,) = signed_rank_intervals(logs[None], confidence=confidence)
    return Estimate.from_logs(
        centre,
        low,
        high,
        confidence=confidence,
        n=len(logs),
        # Robust, as the estimate is: a normal deviate's is its standard deviation.
        scatter=float(np.median(np.abs(logs - centre))) * 1.4826,
    )


def signed_rank_intervals(
    series: Floats, *, confidence: float, hidden: float = HIDDEN
) -> tuple[Floats, Floats, Floats]:
    """Return centre and ends of the interval of `paired_ratio` for each row of log ratios."""
    skip = _signed_rank_skip(series.shape[1], confidence)
    walsh = _walsh_averages(series)
    middle = ((walsh.shape[1] - 1) // 2, walsh.shape[1] // 2)
    walsh.partition((skip, *middle, -1 - skip), axis=1)
    centre, widening = walsh[:, middle].mean(axis=1), _dependence(series, hidden)
    low = centre - widening * (centre - walsh[:, skip])
    high = centre + widening * (walsh[:, -1 - skip] - centre)
    return centre, low, high


def hodges_lehmann(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """Return the estimate of `paired_ratio` without an interval; one pair is enough."""
    logs = np.array(_log_ratios(numerators, denominators, least=1))
    return math.exp(float(np.median(_walsh_averages(logs[None]))))


def _walsh_averages(series: Floats) -> Floats:
    """Return the means of all pairs of a row's values, each also with itself."""
    first, second = np.triu_indices(series.shape[1])
    return (series[:, first] + series[:, second]) / 2


def _least_pairs(confidence: float) -> int:
    """Return how many signs it takes for their agreement to be as unlikely as is asked."""
    return math.ceil(math.log2(2 / (1 - confidence)) - 1e-9)


@cache
def _signed_rank_skip(n: int, confidence: float) -> int:
    """Return how many of the Walsh averages lie outside the interval at either end."""
    density = np.ones(1)
    for rank in range(1, n + 1):  # each rank is positive or not, with even odds
        density = (np.pad(density, (0, rank)) + np.pad(density, (rank, 0))) / 2
    tail = (1 - confidence) / 2 * (1 + 1e-9)
    return int(np.searchsorted(np.cumsum(density), tail, side="right")) - 1


def _dependence(series: Floats, hidden: float) -> Floats:
    """Return by what factor positive autocorrelation widens the interval of each row's centre.

    The effective sample size of a first-order autoregression is ``n (1 - r) / (1 + r)``
    (Bayley and Hammersley, J. R. Stat. Soc. Suppl. 8, 1946). The autocorrelation is that of
    the ranks, which a stall does not hide it from, and corrected for its bias in short series
    (Marriott and Pope, Biometrika 41, 1954). In a short series it is known badly (docs/method.md),
    so that no less than `hidden` over n is taken.
    """
    n = series.shape[1]
    if n <= 3:
        return np.ones(len(series))
    ranks = np.array([_ranks(row) for row in series]).reshape(series.shape)
    ranks -= n / 2
    total = np.sum(ranks**2, axis=1)
    biased = np.sum(ranks[:, 1:] * ranks[:, :-1], axis=1) / np.where(total > 0, total, 1)
    r = np.clip((n * biased + 1) / (n - 3), min(hidden / n, 0.9), 0.9)
    return np.asarray(np.sqrt((1 + r) / (1 - r)))


def _ranks(values: Floats) -> Floats:
    """Return ranks from a half on; equal values share the mean of theirs."""
    _, ties, counts = np.unique(values, return_inverse=True, return_counts=True)
    shared: Floats = np.cumsum(counts) - counts / 2
    return shared[ties]


def _log_ratios(
    numerators: Sequence[float], denominators: Sequence[float], *, least: int
) -> list[float]:
    top = positive("numerators", numerators, least=least)
    bottom = positive("denominators", denominators, least=least)
    if len(top) != len(bottom):
        raise SampleError(f"{len(top)} numerators for {len(bottom)} denominators: not pairs")
    # Not the log of the ratio, which may overflow where both are finite.
    return [math.log(a) - math.log(b) for a, b in zip(top, bottom, strict=True)]


def mean_ratio(
    numerators: Sequence[float], denominators: Sequence[float], *, confidence: float
) -> Estimate:
    """Return the geometric mean of paired ratios with Student's t interval.

    For few pairs without outliers, such as mean losses paired by seed. The interval at
    ``1 - 2 * alpha`` is that of two one-sided tests at ``alpha`` (Schuirmann,
    J. Pharmacokinet. Biopharm. 15, 1987).
    """
    _check_confidence(confidence)
    logs = _log_ratios(numerators, denominators, least=2)
    n = len(logs)
    centre, scatter = statistics.fmean(logs), statistics.stdev(logs)
    half = float(stdtrit(n - 1, (1 + confidence) / 2)) * scatter / math.sqrt(n)
    return Estimate.from_logs(
        centre, centre - half, centre + half, confidence=confidence, n=n, scatter=scatter
    )


def predicted_ratio(
    now: float,
    runs: Sequence[float],
    *,
    spread: float,
    degrees: float = math.inf,
    confidence: float = 0.99,
) -> Estimate:
    """Return `now` over the runs' geometric mean, with the interval a further run would have.

    It is Student's prediction interval for one more run (Hahn and Meeker, Statistical
    Intervals, section 4.7): its width comes from the spread *between* runs, a standard deviation
    of the log, which rests on so many degrees of freedom; infinite if it is taken for known.
    """
    _check_confidence(confidence)
    if not (math.isfinite(spread) and spread >= 0):
        raise SampleError(f"spread = {spread!r}: must be finite and not negative")
    (current,) = positive("now", [now])
    logs = [math.log(run) for run in positive("runs", runs)]
    shift = math.log(current) - statistics.fmean(logs)
    tail = (1 + confidence) / 2
    normal = statistics.NormalDist().inv_cdf(tail)
    quantile = normal if math.isinf(degrees) else float(stdtrit(degrees, tail))
    half = quantile * spread * math.sqrt(1 + 1 / len(logs))
    return Estimate.from_logs(
        shift, shift - half, shift + half, confidence=confidence, n=len(logs), scatter=spread
    )
