"""How good is a nightly gate? Simulated nights, judged by this one and by the rules of others.

    python studies/nights_study.py         # a quarter of an hour; writes docs/studies/nights.md

Pure arithmetic with a seed: the same on every machine. A baseline of three promoted runs lives for
twenty nights, in which the suite's figures are measured once a night; the first of them is judged,
unchanged and slowed down.
"""

import math
import sys
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path
from statistics import fmean, median, stdev

import msgspec
import numpy as np
from nights_page import PAIR_S, page
from numpy.typing import NDArray
from recordings import write_whole
from scipy.special import stdtrit

from perfsuite.judging.estimates import Estimate, predicted_ratio
from perfsuite.judging.interleaving import pooled_ratio
from perfsuite.judging.spreads import Spread, observed_spread, or_assumed, pooled_spreads
from perfsuite.judging.stopping import sample
from perfsuite.measuring.turns import USUAL_BUDGET_S

FOLDER = Path(__file__).parent.parent / "docs" / "studies"
NIGHTS, LIFE, SEED = 10_000, 20, 20261125
PROMOTED, FIGURES, BLOCKS = 3, 10, 20
SPREADS = (0.003, 0.01, 0.02, 0.04)
KINDS = ("calm", "drift", "strays", "software")
PLANTED = (0.0, 0.07, 0.10)
WIDTH = math.log1p(0.05)  # of the margin
ASSUMED, CONFIDENCE = 0.02, 0.99
MOVED = math.log1p(0.10)  # what new software costs
ROOM = round(USUAL_BUDGET_S / PAIR_S)
"""For so many pairs of processes in a benchmark's usual budget."""
MORE = 10
"""Times that budget, which a night may be given instead."""

Logs = NDArray[np.float64]


class NightsCase(msgspec.Struct, frozen=True, kw_only=True):
    """What was said of the nights of one kind, by each rule: how many were of which word."""

    spread: float
    kind: str
    planted: float
    nights: int
    said: dict[str, dict[str, int]]
    suspected: int  # by the first stage
    room: int  # for so many pairs of processes in the larger budget
    pairs: float  # of them, in a night that was suspected, on average
    most_pairs: int  # in one night of a hundred that were suspected, at least so many


def lives(
    draw: np.random.Generator, spread: float, kind: str
) -> Iterator[tuple[Logs, Logs, Logs, Logs]]:
    """Yield baselines: figures by promoted run and by night, how each scatters, the nights' drift.

    All are logarithms. Figures scatter by `spread`, give or take a third.
    """
    for _ in range(NIGHTS // LIFE):
        own = spread * np.exp(draw.normal(0, 0.3, FIGURES))
        values = draw.normal(0, 1, (PROMOTED + LIFE, FIGURES)) * own
        drift = np.zeros(LIFE)
        if kind == "strays":
            far = draw.random(values.shape) < 0.05
            values = np.where(far, 5 * np.abs(values), values)
        elif kind == "drift":  # from night to night, in which all figures share
            steps = draw.normal(0, spread * math.sqrt(1 - 0.8**2), LIFE)
            for night in range(LIFE):
                drift[night] = 0.8 * (drift[night - 1] if night else 0.0) + steps[night]
        elif kind == "software":
            drift[draw.integers(LIFE) :] = MOVED
        yield values[:PROMOTED], values[PROMOTED:] + drift[:, None], own, drift


def screen(now: float, runs: Sequence[float], spread: Spread) -> str:
    """Return what a stored baseline says, as `perfsuite.records.baseline` does."""
    spread = or_assumed(spread, ASSUMED)
    found = predicted_ratio(
        now,
        runs,
        spread=spread.deviation,
        degrees=spread.degrees,
        confidence=2 * CONFIDENCE - 1,
    )
    return _word(math.log(found.low), math.log(found.high))


def _word(low: float, high: float) -> str:
    return "PASS" if high <= WIDTH else "FAIL" if low > WIDTH else "INCONCLUSIVE"


def confirm(draw: np.random.Generator, scatter: float, planted: float) -> tuple[str, str, int]:
    """Return what pairs of processes say of a change, and how many it took.

    First what they say within the larger budget, which that number is of, then within the usual.
    """

    def judge(ratios: Sequence[float]) -> str:
        found: Estimate = pooled_ratio(ratios, confidence=CONFIDENCE)
        low, high = math.log(found.low), math.log(found.high)
        if low >= -WIDTH and high <= WIDTH:
            return "PASS"
        return "FAIL" if low > WIDTH else "PASS" if high < -WIDTH else "INCONCLUSIVE"

    ratios: list[float] = []

    def pair(_: int) -> float:
        # Both of its processes scatter; what the night does to one, it does to the other.
        ratios.append(math.exp(draw.normal(math.log1p(planted), math.sqrt(2) * scatter)))
        return ratios[-1]

    sample(
        pair,
        clear=lambda so_far: judge(so_far) != "INCONCLUSIVE",
        budget_s=MORE * ROOM,
        now=lambda: float(len(ratios)),
    )
    return judge(ratios), judge(ratios[:ROOM]), len(ratios)


def before(now: float, runs: Sequence[float]) -> str:
    """Return what perfsuite 0.2 said, by three runs of one figure and without a second look."""
    logs = [math.log(run) for run in runs]
    half = float(stdtrit(len(logs) - 1, (1 + CONFIDENCE) / 2)) * stdev(logs)
    half *= math.sqrt(1 + 1 / len(logs))
    shift = math.log(now) - fmean(logs)
    return _word(shift - half, shift + half)


def others(blocks: Logs, golden: Logs, past: Sequence[float]) -> dict[str, str]:
    """Return what rules without a spread say: of blocks, beside a golden run, or past nights."""
    worse = {
        "pytest-benchmark, mean:5%": blocks.mean() / golden.mean() > 1.05,
        "pytest-benchmark, min:5%": blocks.min() / golden.min() > 1.05,
        "Megatron, median within 5%": abs(median(blocks) / median(golden) - 1) > 0.05,
        # Two points in a row beyond 5 % of the median of some days before them.
        "PyTorch HUD, two nights of 5%": len(past) > 1
        and all(each / median(past[:-1]) > 1.05 for each in (past[-1], float(median(blocks)))),
    }
    return {rule: "FAIL" if red else "PASS" for rule, red in worse.items()}


def case(given: tuple[float, str]) -> list[NightsCase]:
    """Return what was said of the nights of one spread and kind."""
    spread, kind = given
    draw = np.random.default_rng([SEED, SPREADS.index(spread), KINDS.index(kind)])
    said: dict[float, dict[str, Counter[str]]] = {each: {} for each in PLANTED}
    pairs: dict[float, list[int]] = {each: [] for each in PLANTED}
    for promoted, nights, own, drift in lives(draw, spread, kind):
        runs = np.exp(promoted)
        unchanged: list[list[float]] = [[] for _ in range(FIGURES)]
        within = draw.normal(0, own[0] / 2, (LIFE + 1, BLOCKS))
        golden = np.exp(promoted[0, 0] + within[LIFE])
        past: deque[float] = deque(maxlen=7)
        for values, tonight, block_noise in zip(np.exp(nights), drift, within, strict=False):
            spreads = pooled_spreads(
                {n: observed_spread(runs[:, n].tolist(), unchanged[n]) for n in range(FIGURES)}
            )
            for planted in PLANTED:
                now = float(values[0] * (1 + planted))
                judged = others(np.exp(block_noise) * now, golden, [*past])
                judged["perfsuite 0.2"] = before(now, runs[:, 0].tolist())
                first = screen(now, runs[:, 0].tolist(), spreads[0])
                word, usual = first, first
                if first != "PASS":
                    word, usual, count = confirm(draw, float(own[0]), planted)
                    pairs[planted].append(count)
                    if first == "FAIL" and word == "PASS":
                        fresh = draw.normal(tonight, float(own[0]), count)
                        today = math.exp(float(np.median(fresh)))
                        if screen(today, runs[:, 0].tolist(), spreads[0]) == "FAIL":
                            word, usual = (
                                "ENVIRONMENT" if each == "PASS" else each for each in (word, usual)
                            )
                judged["perfsuite"], judged["perfsuite, more budget"] = usual, word
                for rule, each in judged.items():
                    said[planted].setdefault(rule, Counter())[each] += 1
                if not planted and word != "ENVIRONMENT":  # it teaches how figures spread
                    for n in range(FIGURES):
                        unchanged[n].append(float(values[n]))
            past.append(float(values[0]))
    return [
        NightsCase(
            spread=spread,
            kind=kind,
            planted=planted,
            nights=NIGHTS // LIFE * LIFE,
            said={rule: dict(counts) for rule, counts in said[planted].items()},
            suspected=len(pairs[planted]),
            room=MORE * ROOM,
            pairs=round(fmean(pairs[planted] or [0]), 1),
            most_pairs=int(np.quantile(pairs[planted] or [0], 0.99)),
        )
        for planted in PLANTED
    ]


def main() -> int:
    """Run the study and write its page and its figures."""
    with ProcessPoolExecutor() as pool:
        told = [each for part in pool.map(case, product(SPREADS, KINDS)) for each in part]
    write_whole(FOLDER / "nights.json", msgspec.json.format(msgspec.json.encode(told), indent=1))
    write_whole(FOLDER / "nights.md", page(told).encode())
    print(f"wrote {FOLDER / 'nights.md'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
