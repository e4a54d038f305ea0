"""How good are the change points? Simulated histories, with and without a change.

    python studies/history_study.py        # seconds; writes docs/studies/history.md

Pure arithmetic with a seed: the same on every machine.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from recordings import write_whole
from scipy.stats import binomtest

from perfsuite.records.history import change_points

FOLDER = Path(__file__).parent.parent / "docs" / "studies"
RUNS, NOISE, TRIALS, SEED = 60, 0.01, 4000, 20261124
STEPS = (0.02, 0.03, 0.05)
WITHIN = 5
"""After how many runs a change is to be found."""


class HistoryCase(msgspec.Struct, frozen=True, kw_only=True):
    """Trials of one kind: how many found a change, of how many."""

    step: float
    noise: str
    found: int
    trials: int


def noise(draw: np.random.Generator, kind: str) -> "np.typing.NDArray[np.float64]":
    """Return a history's noise: normal, or with a stray of five times as much now and then."""
    scatter = draw.normal(0, NOISE, RUNS)
    if kind == "strays":
        scatter = np.where(draw.random(RUNS) < 0.05, scatter * 5, scatter)
    return scatter


def cases() -> list[HistoryCase]:
    """Return all trials."""
    draw = np.random.default_rng(SEED)
    told = []
    for kind in ("normal", "strays"):
        for step in (0.0, *STEPS):
            found = 0
            for _ in range(TRIALS):
                logs = noise(draw, kind)
                if step:
                    logs[-WITHIN:] += np.log1p(step)
                at = change_points(np.exp(logs).tolist())
                # A change is found where it is, give or take two runs; any other is false.
                found += any(abs(each - (RUNS - WITHIN)) <= 2 for each in at) if step else bool(at)
            told.append(HistoryCase(step=step, noise=kind, found=found, trials=TRIALS))
    return told


def page(told: Sequence[HistoryCase]) -> str:
    """Return the study as Markdown."""
    lines = [
        "# How good are the change points of a history?",
        "",
        f"Simulated histories of {RUNS} runs whose figures scatter by {NOISE:.0%}, {TRIALS:,} of"
        f" each kind, seed {SEED}. A step counts as found where {WITHIN} runs after it suffice."
        " Written by `python studies/history_study.py`; intervals are Wilson's, at 95 %.",
        "",
        "| noise | step | has a change | |",
        "| --- | ---: | ---: | --- |",
    ]
    for case in told:
        interval = binomtest(case.found, case.trials).proportion_ci(method="wilson")
        lines.append(
            f"| {case.noise} | {case.step:.0%} | {case.found / case.trials:.1%} |"
            f" [{interval.low:.1%}, {interval.high:.1%}] |"
        )
    lines += [
        "",
        "`strays` are normal with one run in twenty off by five times as much. At a step of 0 %"
        " every change is false.",
    ]
    return "\n".join(lines)


def main() -> int:
    """Run the study and write its page and its figures."""
    told = cases()
    write_whole(FOLDER / "history.json", msgspec.json.format(msgspec.json.encode(told), indent=1))
    write_whole(FOLDER / "history.md", page(told).encode())
    print(f"wrote {FOLDER / 'history.md'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
