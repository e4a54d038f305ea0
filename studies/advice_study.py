"""Does the margin hold that `perfsuite advise` names? Simulated machines of known spread.

    python studies/advice_study.py         # some minutes; writes docs/studies/advice.md

Pure arithmetic with a seed: the same on every machine. Each history gets its advice, and many more
nights of the same machine are judged with that margin, in both stages as a session does.
"""

import math
import sys
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path
from statistics import fmean, median

import msgspec
import numpy as np
from advice_page import page
from reach import CONFIDENCE, COUNTS, draw_intervals, judge, reach
from recordings import write_whole

from perfsuite.judging.advice import Advice, Known, advise, pair_scatter
from perfsuite.judging.estimates import Floats, predicted_ratio
from perfsuite.judging.spreads import Spread, observed_spread, or_assumed, pooled_spreads

FOLDER = Path(__file__).parent.parent / "docs" / "studies"
SEED, SERIES, DRAWN = 20261126, 8_000, 4_000  # samplings: for the widths, and for nights
FALSE_ALARMS, MISSED = 0.001, 0.01
HISTORIES, EACH = 100, 100
SPREADS = (0.003, 0.01, 0.02, 0.04)
KINDS = ("calm", "days", "strays")
KNOWN = ("three promoted runs", "and 20 nights, 24 pairs")
BUDGETS = (60.0, 240.0)
PROMOTED, FIGURES, NIGHTS, PAIRS, PAIR_S, ASSUMED = 3, 10, 20, 24, 2.0, 0.02


class AdviceCase(msgspec.Struct, frozen=True, kw_only=True):
    """What came of the nights of one kind of machine, judged with the advised margins.

    Attributes:
        margin: the median of those that were advised.
        red: of unchanged nights.
        confirmed_red: of unchanged nights, had each been confirmed.
        found: of nights worse by twice the margin.
        suspected, told: share of unchanged nights that were confirmed, and that was foretold.
    """

    spread: float
    kind: str
    known: str
    budget_s: float
    margin: float
    nights: int
    red: int
    confirmed_red: int
    found: int
    suspected: float
    told: float


class AdviceStudy(msgspec.Struct, frozen=True, kw_only=True):
    """Widths that pairs hold, in units of a pair's scatter, and what came of the advice."""

    reach: dict[int, float]
    cases: list[AdviceCase]


def reaches(series: int = SERIES) -> dict[int, float]:
    """Return the width that so many pairs hold; half of the false alarms are left in reserve."""
    found = draw_intervals(series, kind="normal", seed=SEED)
    return {
        pairs: math.ceil(100 * reach(found, pairs, false_alarms=FALSE_ALARMS / 2, missed=MISSED))
        / 100
        for pairs in COUNTS
    }


class SimulatedMachine:
    """A machine whose figures scatter by `spread`, give or take a third."""

    def __init__(self, draw: np.random.Generator, spread: float, kind: str) -> None:
        self._draw, self._kind = draw, kind
        self.own = spread * np.exp(draw.normal(0, 0.3, FIGURES))
        self._days = spread if kind == "days" else 0.0  # all figures of a night share it

    def day(self, nights: int = 1) -> Floats:
        """Return what nights do to all figures alike."""
        return self._draw.normal(0, self._days, nights)

    def values(self, runs: int) -> Floats:
        """Return figures by run, without their day."""
        return self._scatter((runs, FIGURES)) * self.own

    def pairs(self, count: int) -> Floats:
        """Return ratios by pair and figure: both processes scatter, and share their day."""
        return self._scatter((count, FIGURES)) * self.own * math.sqrt(2)

    def _scatter(self, shape: tuple[int, int]) -> Floats:
        values = self._draw.normal(0, 1, shape)
        if self._kind == "strays":
            return np.where(self._draw.random(shape) < 0.05, 5 * values, values)
        return values


def known_of(promoted: Floats, nights: Floats, pairs: Floats) -> Known:
    """Return what would be known of the first figure, as `perfsuite.records.evidence` does."""
    runs, past = np.exp(promoted), np.exp(nights)
    figures = range(FIGURES)
    between = pooled_spreads({n: observed_spread(runs[:, n].tolist()) for n in figures})
    screened = pooled_spreads(
        {n: observed_spread(runs[:, n].tolist(), past[:, n].tolist()) for n in figures}
    )
    scatter: dict[int, Spread] = {}
    for n in figures:
        if (spread := pair_scatter([np.exp(pairs[:, n]).tolist()])) is not None:
            scatter[n] = spread
    return Known(
        name="step_time step_s",
        within=None,
        between=or_assumed(between[0], ASSUMED),
        nights=None,
        screened=or_assumed(screened[0], ASSUMED),
        runs=PROMOTED,
        pairs=pooled_spreads(scatter).get(0),
        pair_s=PAIR_S,
    )


def case(
    spread: float, kind: str, known: str, budget_s: float, intervals: Floats, *, histories: int
) -> AdviceCase:
    """Return what came of one kind of machine; `intervals` are of its pairs."""
    draw = np.random.default_rng([SEED, round(1e4 * spread), len(kind), len(known), int(budget_s)])
    much = known != KNOWN[0]
    red, confirmed_red, found = 0, 0, 0
    suspected, told, margins = [], [], []
    for _ in range(histories):
        machine = SimulatedMachine(draw, spread, kind)
        promoted = machine.values(PROMOTED) + machine.day()
        nights = machine.values(NIGHTS * much) + machine.day(NIGHTS * much)[:, None]
        what = known_of(promoted, nights, machine.pairs(PAIRS * much))
        advice = advise(what, budget_s=budget_s, confidence=CONFIDENCE)
        width, half = math.log1p(advice.margin), _half(what)
        today = machine.day(EACH)
        off = today - promoted[:, 0].mean()
        tonight = off + machine.values(EACH)[:, 0]
        same, worse = _confirmed(draw, intervals, machine, width, advice)
        suspect = tonight + half > width
        fresh = off + draw.normal(0, machine.own[0] / math.sqrt(advice.pairs), EACH)
        environment = same & (tonight - half > width) & (fresh - half > width)
        red += int((suspect & ~same | environment).sum())
        confirmed_red += int((~same).sum())
        found += int(((tonight + 2 * width + half > width) & worse).sum())
        suspected.append(float(suspect.mean()))
        told.append(advice.suspected)
        margins.append(advice.margin)
    return AdviceCase(
        spread=spread,
        kind=kind,
        known=known,
        budget_s=budget_s,
        margin=round(median(margins), 4),
        nights=histories * EACH,
        red=red,
        confirmed_red=confirmed_red,
        found=found,
        suspected=round(fmean(suspected), 5),
        told=round(fmean(told), 5),
    )


def _half(known: Known) -> float:
    """Return half the width of the screen's interval."""
    spread, runs = known.screened, [1.0] * known.runs
    given = {"spread": spread.deviation, "degrees": spread.degrees}
    return math.log(predicted_ratio(1.0, runs, confidence=2 * CONFIDENCE - 1, **given).high)


def _confirmed(
    draw: np.random.Generator,
    intervals: Floats,
    machine: SimulatedMachine,
    width: float,
    advice: Advice,
) -> Floats:
    """Return which of some nights are found SAME, and which worse once twice the margin is lost."""
    width /= math.sqrt(2) * float(machine.own[0])
    nights = intervals[draw.integers(len(intervals), size=EACH)]
    same, _ = judge(nights, width, advice.pairs, 0.0)
    _, worse = judge(nights, width, advice.pairs, 2 * width)
    return np.stack([same, worse])


def cases(series: int = DRAWN, histories: int = HISTORIES) -> list[AdviceCase]:
    """Return what came of every kind of machine."""
    pools = {kind: draw_intervals(series, kind=kind, seed=SEED + 1) for kind in ("calm", "strays")}
    pools["days"] = pools["calm"]
    with ProcessPoolExecutor() as pool:
        waiting = [
            pool.submit(case, spread, kind, known, budget_s, pools[kind], histories=histories)
            for kind, known, spread, budget_s in product(KINDS, KNOWN, SPREADS, BUDGETS)
        ]
        return [each.result() for each in waiting]


def main() -> int:
    """Run the study and write its page and its figures."""
    told = AdviceStudy(reach=reaches(), cases=cases())
    write_whole(FOLDER / "advice.json", msgspec.json.format(msgspec.json.encode(told), indent=1))
    write_whole(FOLDER / "advice.md", page(told).encode())
    print(f"wrote {FOLDER / 'advice.md'}; perfsuite.judging.advice.REACH = {told.reach}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
