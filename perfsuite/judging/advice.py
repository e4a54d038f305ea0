"""Advice: the margin that a machine can hold, from how its figures scatter. Pure functions.

A night is judged in two stages: stored figures suspect, pairs of processes decide. So a margin is
limited by the scatter of pairs and by how many of them the budget has room for; how often an
unchanged night has to be confirmed depends on the spread of stored figures.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist, median

from scipy.special import chdtri, stdtrit

from perfsuite.judging.spreads import MAD_EFFICIENCY, MAD_TO_DEVIATION, Spread

_PAIRS = (12, 16, 24, 32, 48, 64, 96, 128, 192)
_WIDTHS = (7.77, 3.73, 2.24, 1.71, 1.25, 1.03, 0.78, 0.71, 0.54)
REACH = dict(zip(_PAIRS, _WIDTHS, strict=True))
"""The margin that so many pairs of processes hold, as its logarithm over the scatter of a pair:
unchanged code is not found SAME in 0.1 % of all cases or less, and code that is worse by twice the
margin's logarithm is found worse in 99 % or more (studies/advice_study.py)."""
SUPPOSED_PAIRS = 24
"""That a budget has room for, where nobody knows how long one takes."""
_NORMAL = NormalDist()
_SURE = 0.95
"""That a spread which rests on few figures is no larger than is reckoned with."""
_STEP = 0.005
"""Margins are rounded up to a multiple."""
_SELDOM = 0.1
"""The share of unchanged nights that may have to be confirmed at an advised margin."""
_MOST_BORROWED = 10.0
"""Degrees of freedom of a scatter that no pair has shown: figures spread alike within a third."""
_MOST_RUNS = 20
_FEWEST_RUNS = 3
_LEAST_VALUES = 6
"""By fewer a median absolute deviation tells nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is known of one figure; all scatter as standard deviations of logarithms.

    Attributes:
        within: of blocks in one process, None if it is not known.
        between: of promoted runs, each a process of its own, moderated by the other figures; of
            nights, which differ by more, where fewer than three were promoted.
        nights: of nights apart from lasting changes, None if there are too few.
        screened: what the screen reckons with, learnt from promoted runs and nights.
        runs: promoted.
        pairs: of the ratio of two processes that took turns, None if no two ever did.
        pair_s: that two such processes take, None if that is not known.
        guessed: whether that is from a warm-up, and no two such processes ever ran.
    """

    name: str
    within: float | None
    between: Spread
    nights: float | None
    screened: Spread
    runs: int
    pairs: Spread | None
    pair_s: float | None
    guessed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """What a figure's machine can do.

    Attributes:
        scatter: of a pair, as it is reckoned with: no less than it is, nearly surely.
        pairs: that the budget has room for.
        held: the margin that they hold.
        margin: the larger of that and one at which few unchanged nights have to be confirmed.
        suspected: share of unchanged nights that have to be confirmed at that margin.
    """

    scatter: float
    pairs: int
    held: float
    margin: float
    suspected: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a wished margin takes; None where no number is enough.

    Attributes:
        pairs: of processes.
        seconds: that they take, None if that is not known either.
        runs: to promote, for one unchanged night in ten to be confirmed.
    """

    pairs: int | None
    seconds: float | None
    runs: int | None


def deviation(logs: Sequence[float]) -> float:
    """Return the standard deviation of logarithms of which some may be far off."""
    centre = median(logs)
    return MAD_TO_DEVIATION * median(abs(log - centre) for log in logs)


def pair_scatter(sessions: Sequence[Sequence[float]]) -> Spread | None:
    """Return how the ratios of pairs scatter around what their session's had in common."""
    squares = degrees = 0.0
    for ratios in sessions:
        if len(ratios) >= _LEAST_VALUES:
            own = MAD_EFFICIENCY * (len(ratios) - 1)
            squares += own * deviation([math.log(ratio) for ratio in ratios]) ** 2
            degrees += own
    return Spread(math.sqrt(squares / degrees), degrees) if degrees else None


def night_scatter(values: Sequence[float], changes: Sequence[int]) -> Spread | None:
    """Return how nights scatter around the stretches between changes, which are indices."""
    if len(values) < _LEAST_VALUES:
        return None
    logs = [math.log(value) for value in values]
    ends = [0, *changes, len(logs)]
    stretches = [logs[start:end] for start, end in pairwise(ends)]
    apart = [log - median(stretch) for stretch in stretches for log in stretch]
    # Each stretch has a centre of its own, towards which its nights are drawn.
    own = max(1, len(logs) - len(stretches))
    scatter = MAD_TO_DEVIATION * median(map(abs, apart)) * math.sqrt(len(logs) / own)
    return Spread(scatter, MAD_EFFICIENCY * own)


def worse_by_twice(margin: float) -> float:
    """Return the change that is found at a margin: twice its logarithm, 10.25 % for 5 %."""
    return (1 + margin) ** 2 - 1


def advise(known: Known, *, budget_s: float, confidence: float) -> Advice:
    """Return the margin that a figure's machine holds with a budget for its confirmation."""
    scatter = _pair_scatter(known)
    pairs = SUPPOSED_PAIRS
    if known.pair_s is not None:
        affordable = [each for each in REACH if each * known.pair_s <= budget_s]
        pairs = max(affordable, default=min(REACH))  # the first look is taken in any case
    held = _rounded(REACH[pairs] * scatter)
    margin = held
    if known.runs >= _FEWEST_RUNS:  # else the screen assumes a spread, and confirms all nights
        off, quantile = _screened(known, known.runs, confidence)
        margin = max(held, _rounded(off * (quantile - _NORMAL.inv_cdf(_SELDOM))))
    return Advice(
        scatter=scatter,
        pairs=pairs,
        held=held,
        margin=margin,
        suspected=suspected(known, margin=margin, confidence=confidence),
    )


def _rounded(width: float) -> float:
    """Return the margin of a width, rounded up."""
    return round(max(1, math.ceil(math.expm1(width) / _STEP - 1e-9)) * _STEP, 4)


def suspected(known: Known, *, margin: float, confidence: float, runs: int | None = None) -> float:
    """Return the share of unchanged nights that the screen does not pass at once.

    `runs`: as if so many were promoted.
    """
    off, quantile = _screened(known, known.runs if runs is None else runs, confidence)
    return _NORMAL.cdf(quantile - math.log1p(margin) / off) if off else 0.0


def wish(known: Known, *, margin: float, confidence: float) -> Wish:
    """Return what a margin takes that somebody would like to have."""
    width = math.log1p(margin)
    enough = [pairs for pairs, reach in REACH.items() if reach * _pair_scatter(known) <= width]
    pairs = min(enough, default=None)
    few = [
        runs
        for runs in range(1, _MOST_RUNS + 1)
        if suspected(known, margin=margin, confidence=confidence, runs=runs) <= _SELDOM
    ]
    return Wish(
        pairs=pairs,
        seconds=None if pairs is None or known.pair_s is None else pairs * known.pair_s,
        runs=min(few, default=None),
    )


def _pair_scatter(known: Known) -> float:
    """Return the scatter of a pair: that of two processes apart, where none took turns."""
    if known.pairs is not None:
        return _at_most(known.pairs)
    between = known.between
    if math.isfinite(between.degrees):
        between = Spread(between.deviation, min(between.degrees, _MOST_BORROWED))
    return math.sqrt(2) * _at_most(between)


def _screened(known: Known, runs: int, confidence: float) -> tuple[float, float]:
    """Return how far stored figures of so many runs are off, and the screen's quantile."""
    runs = max(1, runs)
    degrees = max(1.0, known.screened.degrees + runs - max(1, known.runs))
    quantile = _NORMAL.inv_cdf(confidence)
    if math.isfinite(degrees):
        quantile = float(stdtrit(degrees, confidence))
    return known.screened.deviation * math.sqrt(1 + 1 / runs), quantile


def _at_most(spread: Spread) -> float:
    """Return what a spread does not exceed, nearly surely, by chi-squared."""
    if not math.isfinite(spread.degrees):
        return spread.deviation
    degrees = max(spread.degrees, 1.0)
    return spread.deviation * math.sqrt(degrees / float(chdtri(degrees, _SURE)))
