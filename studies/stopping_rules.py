"""What is compared in the study of stopping: rules, ways to measure a pair, simulation, replay."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import msgspec
import numpy as np
from numpy.typing import NDArray

from perfsuite.against.restart import MAX_QUADS, MIN_QUADS, TURNS_OVER_START
from perfsuite.judging.estimates import HIDDEN, Floats, is_steady, signed_rank_intervals
from perfsuite.judging.stopping import LOOKS, at_each_look
from perfsuite.measuring.timing import STEADY_TOLERANCE, STEADY_WINDOW

CONFIDENCE, MARGIN = 0.99, 0.05
CHUNK = 6
"""Pairs that are drawn together, so that neighbours resemble each other as they did."""
ROWS = 100  # series that are judged at once; of 346 values each has 60,031 averages
OPEN, SAME, SLOWER, FASTER = range(4)
Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """When to look, at what confidence, and what correlation may be hidden (over n)."""

    looks: Sequence[int]
    confidence: Callable[[int], float]
    hidden: float


EARLIER_LOOKS = (12, 18, 27, 41, 61, 92, 138, 207)
EARLIER = Rule(
    looks=EARLIER_LOOKS,
    confidence=lambda _: 1 - (1 - CONFIDENCE) / len(EARLIER_LOOKS),
    hidden=0.0,
)
NOW = Rule(looks=LOOKS, confidence=partial(at_each_look, CONFIDENCE), hidden=HIDDEN)
LONGEST = max(*EARLIER.looks, *NOW.looks)


def judge(series: Floats, rule: Rule, most: Ints | None = None) -> tuple[Ints, Ints]:
    """Return what is said of each row of log ratios, and after how many values.

    Where `most` is given, a budget ends a row after so many, at the first look at the earliest.
    """
    width = math.log1p(MARGIN)
    said = np.full(len(series), OPEN)
    last = np.full(len(series), rule.looks[-1])
    if most is not None:
        last = np.clip(most, rule.looks[0], last)
    taken, waiting = last.copy(), np.arange(len(series))
    for n in sorted({*rule.looks, *last.tolist()}):
        due = waiting if n in rule.looks else waiting[last[waiting] == n]
        for rows in np.array_split(due, max(len(due) // ROWS, 1)):
            _, low, high = signed_rank_intervals(
                series[rows, :n], confidence=rule.confidence(n), hidden=rule.hidden
            )
            words = np.where(low > width, SLOWER, np.where(high < -width, FASTER, OPEN))
            said[rows] = np.where((low >= -width) & (high <= width), SAME, words)
            taken[rows] = n
        waiting = waiting[(said[waiting] == OPEN) & (last[waiting] > n)]
    return said, taken


def noise(kind: str, draw: np.random.Generator, trials: int) -> Floats:
    """Return series with a standard deviation of about one."""
    shape = trials, LONGEST
    if kind == "heavy tails":
        return draw.standard_t(3, shape) / math.sqrt(3)
    found = draw.normal(size=shape)
    if kind == "strays":
        return np.where(draw.random(shape) < 0.05, 5 * found, found)
    if kind.startswith("r = "):
        r = float(kind.removeprefix("r = "))
        for at in range(1, LONGEST):
            found[:, at] = r * found[:, at - 1] + math.sqrt(1 - r * r) * found[:, at]
    return found


class ColdRestart(msgspec.Struct, frozen=True, kw_only=True):
    """A pair of fresh processes that took turns from the first block on, without a warm-up.

    Attributes:
        order: a letter a block; each arm's first block comes before all groups of four.
        start_s: seconds until both were ready for it.
        end_s: seconds that it took to end both.
        blocks_s: seconds a step.
    """

    order: str
    start_s: float
    end_s: float
    blocks_s: list[float]

    def of(self, letter: str) -> list[float]:
        """Return one arm's blocks."""
        return [s for arm, s in zip(self.order, self.blocks_s, strict=True) if arm == letter]


@dataclass(frozen=True, kw_only=True)
class Way:
    """How pairs of processes are measured and judged."""

    name: str
    rule: Rule
    warm_up: Callable[[Sequence[float]], bool]  # tells of an arm's blocks whether it is warm
    neighbours: bool  # the median over neighbouring turns, or Hodges-Lehmann over groups of four
    turns_over_start: float


def steady_earlier(blocks: Sequence[float]) -> bool:
    """Tell whether the medians of the last three blocks and the three before agree within 5 %."""
    if len(blocks) < 6:
        return False
    before, after = np.median(blocks[-6:-3]), np.median(blocks[-3:])
    return abs(math.log(after / before)) <= math.log1p(STEADY_TOLERANCE)


steady_now = partial(is_steady, window=STEADY_WINDOW, tolerance=STEADY_TOLERANCE)
WAYS = (
    Way(
        name="before",
        rule=EARLIER,
        warm_up=steady_earlier,
        neighbours=False,
        turns_over_start=1,
    ),
    Way(name="looks", rule=NOW, warm_up=steady_earlier, neighbours=False, turns_over_start=1),
    Way(name="neighbours", rule=NOW, warm_up=steady_earlier, neighbours=True, turns_over_start=1),
    Way(name="warm-up", rule=NOW, warm_up=steady_now, neighbours=True, turns_over_start=1),
    Way(
        name="turns: now",
        rule=NOW,
        warm_up=steady_now,
        neighbours=True,
        turns_over_start=TURNS_OVER_START,
    ),
)
"""Each as the one before but for what it is named after; the last is what perfsuite does."""


def measured(restart: ColdRestart, way: Way, *, steps: int) -> tuple[float, float]:
    """Return the log ratio, and the seconds, that a recorded pair would have given."""
    warm_s = 0.0
    for letter in "AB":
        blocks = restart.of(letter)
        count = next((n for n in range(1, 13) if way.warm_up(blocks[:n])), 12)
        warm_s += steps * sum(blocks[:count])
    turns = np.array(restart.blocks_s[2:]).reshape(-1, 4)
    began_s = restart.start_s + warm_s
    wished = round(way.turns_over_start * began_s / (4 * steps * turns[0, 0]))
    quads = min(max(wished, MIN_QUADS), MAX_QUADS, len(turns))
    turns = turns[:quads]
    sign = np.where(np.array(list(restart.order[2:])).reshape(-1, 4)[:quads] == "B", 1, -1)
    if way.neighbours:
        logs = (np.log(turns) * sign).reshape(-1, 2).sum(axis=1)
        ratio = float(np.median(logs))
    else:
        after, before = (np.sum(turns * (sign == of), axis=1) for of in (1, -1))
        logs = np.log(after / before)
        first, second = np.triu_indices(quads)
        ratio = float(np.median((logs[first] + logs[second]) / 2))
    settling_s = steps * float(turns[0, :2].sum())
    return ratio, began_s + settling_s + steps * float(turns.sum()) + restart.end_s


def drawn(observed: Floats, draw: np.random.Generator, trials: int) -> tuple[Floats, Floats]:
    """Return series of log ratios, and the seconds until each value, drawn from observed pairs.

    A moving-block bootstrap (Kuensch, Ann. Statist. 17, 1989); in half of the series the sides
    change places, which undoes no more than a name.
    """
    chunks = -(-LONGEST // CHUNK)
    starts = draw.integers(0, len(observed) - CHUNK + 1, (trials, chunks))
    at = (starts[:, :, None] + np.arange(CHUNK)).reshape(trials, -1)[:, :LONGEST]
    side = draw.choice((-1, 1), (trials, 1))
    return observed[at, 0] * side, np.cumsum(observed[at, 1], axis=1)
