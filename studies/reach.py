"""What pairs of processes say, drawn once and scaled to any scatter: the study of advice."""

from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np
from numpy.typing import NDArray

from perfsuite.judging.estimates import Floats
from perfsuite.judging.interleaving import pooled_ratio
from perfsuite.judging.stopping import LOOKS

COUNTS = (12, 16, 24, 32, 48, 64, 96, 128, 192)
"""Pairs at which a budget may end."""
AT = tuple(sorted({*COUNTS, *(look for look in LOOKS if look < COUNTS[-1])}))
UNIT, CONFIDENCE, PART = 0.01, 0.99, 250

Bools = NDArray[np.bool_]


def draw_intervals(series: int, *, kind: str, seed: int) -> Floats:
    """Return intervals of unchanged code in units of a pair's scatter: series, look, and end."""
    work = partial(_part, kind, seed)
    with ProcessPoolExecutor() as pool:
        return np.concatenate(list(pool.map(work, range(-(-series // PART)))))[:series]


def _part(kind: str, seed: int, part: int) -> Floats:
    draw = np.random.default_rng([seed, part])
    values = draw.normal(0, 1, (PART, AT[-1]))
    if kind == "strays":  # one pair in twenty is five times as far off
        values = np.where(draw.random(values.shape) < 0.05, 5 * values, values)
    ratios = np.exp(UNIT * values)
    found = [
        [pooled_ratio(each[:n].tolist(), confidence=CONFIDENCE) for n in AT] for each in ratios
    ]
    ends = [[(one.low, one.high) for one in each] for each in found]
    logs: Floats = np.log(np.array(ends)) / UNIT
    return logs


def judge(intervals: Floats, width: Floats | float, pairs: int, shift: Floats | float) -> Bools:
    """Return which are found SAME and which WORSE, as a row each, once sampling has ended.

    `width` of the margin, and `shift` of the change, are in units of a pair's scatter.
    """
    same, worse = (np.zeros(len(intervals), bool) for _ in range(2))
    open_ = ~same
    for index, n in enumerate(AT):
        if n > pairs or (n < pairs and n not in LOOKS):
            continue
        low, high = (intervals[:, index, end] + shift for end in (0, 1))
        now_same, now_worse = (low >= -width) & (high <= width), low > width
        same |= open_ & now_same
        worse |= open_ & now_worse
        open_ &= ~(now_same | now_worse | (high < -width))
    return np.stack([same, worse])


def reach(intervals: Floats, pairs: int, *, false_alarms: float, missed: float) -> float:
    """Return the least width at which so many pairs keep both errors."""
    low, high = 0.5, 40.0
    while high - low > 0.01:
        width = (low + high) / 2
        same, _ = judge(intervals, width, pairs, 0.0)
        _, worse = judge(intervals, width, pairs, 2 * width)
        if (~same).mean() <= false_alarms and (~worse).mean() <= missed:
            high = width
        else:
            low = width
    return high
