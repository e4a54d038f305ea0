"""How soon is a verdict clear? The rule of today against the one before, simulated and replayed.

    python studies/stopping_study.py                  # minutes; arithmetic on what was recorded
    python studies/stopping_study.py --record 150     # records so many pairs first, on a CPU

Pairs are recorded from cold, a block at a time, so that any warm-up and any number of turns can
be tried on them afterwards. The rest is arithmetic with a seed.
"""

import argparse
import importlib
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from recordings import write_whole
from stopping_page import Case, PairStopped, StoppingCases, SuiteStopped, page
from stopping_rules import (
    EARLIER,
    FASTER,
    MARGIN,
    NOW,
    OPEN,
    SAME,
    SLOWER,
    WAYS,
    ColdRestart,
    Ints,
    Way,
    drawn,
    judge,
    measured,
    noise,
)

from perfsuite.devices.choice import choose_device
from perfsuite.judging.estimates import Floats
from perfsuite.judging.interleaving import starting_order
from perfsuite.judging.stopping import Pot

FOLDER = Path(__file__).parent.parent / "docs" / "studies"
QUADS, STEPS = 10, 2
SEED = 20261125
TRIALS = {"simulated": 4000, "replayed": 2000, "suites": 400}
NOISES = ("normal", "heavy tails", "strays", "r = 0.2", "r = 0.4")
SCATTERS = (0.01, 0.02, 0.03, 0.04, 0.06)
LARGER = 0.10
BENCHMARKS, BUDGET_S = 6, 240.0  # four times the default, since the recorded pairs took as long


class Recorded(msgspec.Struct, kw_only=True):
    """Pairs of one machine, all with the same code on both sides."""

    hardware: str
    count: int
    software: dict[str, Any]
    steps: int  # in a block
    restarts: list[ColdRestart]


def record(pairs: int, path: Path) -> None:
    """Record so many pairs of fresh processes, one after the other."""
    # Late: what a replay has no use for. Forks must find imported what an optimizer imports.
    from detection_study import clock_for, make_arm
    from worker_study import ArmProcess

    importlib.import_module("torch._dynamo")
    device = choose_device("cpu")
    hardware = device.hardware()
    study = Recorded(
        hardware=hardware.name,
        count=hardware.count,
        software=device.software(),
        steps=STEPS,
        restarts=[],
    )
    start = partial(
        ArmProcess,
        partial(make_arm, device="cpu", slowdown=0.0),
        steps=STEPS,
        make_clock=partial(clock_for, "cpu"),
        warm=False,
    )
    for index in range(pairs):
        began_s = time.monotonic()
        with ExitStack() as stack:
            letters = starting_order(index)
            arms = {letter: stack.enter_context(start(seed=index)) for letter in letters}
            for arm in arms.values():
                arm.ready()
            ready_s = time.monotonic()
            quads = ("ABBA", "BAAB")
            order = letters + "".join(quads[(each + index // 2) % 2] for each in range(QUADS))
            blocks_s = [round(arms[letter].block().step_s, 5) for letter in order]
            timed_s = time.monotonic()
        study.restarts.append(
            ColdRestart(
                order=order,
                start_s=round(ready_s - began_s, 4),
                end_s=round(time.monotonic() - timed_s, 4),
                blocks_s=blocks_s,
            )
        )
    rows = b",\n".join(msgspec.json.encode(each) for each in study.restarts)
    head = msgspec.json.encode({**msgspec.structs.asdict(study), "restarts": []})
    write_whole(path, head.removesuffix(b"]}") + b"\n" + rows + b"\n]}")


def case(
    said: Ints,
    taken: Ints,
    seconds: Floats | None = None,
    *,
    what: str,
    rule: str,
    planted: float,
    scatter: float | None = None,
) -> Case:
    """Count what was said of trials, `seconds` those until each of their values."""
    took_s = None if seconds is None else seconds[np.arange(len(said)), taken - 1]
    return Case(
        what=what,
        rule=rule,
        planted=planted,
        scatter=scatter,
        trials=len(said),
        same=int(np.sum(said == SAME)),
        slower=int(np.sum(said == SLOWER)),
        faster=int(np.sum(said == FASTER)),
        observations=float(np.median(taken)),
        seconds=None if took_s is None else round(float(np.median(took_s)), 1),
    )


def simulated() -> list[Case]:
    """Return both rules' errors by kind of noise, and how long they take by its size."""
    found = []
    for number, kind in enumerate(NOISES):
        series = noise(kind, np.random.default_rng((SEED, number)), TRIALS["simulated"])
        for name, rule in (("before", EARLIER), ("now", NOW)):
            scatters = SCATTERS if kind == "normal" else (0.03,)
            for scatter in scatters:
                for planted in (0.0, MARGIN, LARGER):
                    if planted == MARGIN and scatter != 0.03:
                        continue
                    logs = scatter * series + np.log1p(planted)
                    said, taken = judge(logs, rule)
                    tell = partial(case, what=kind, rule=name, planted=planted, scatter=scatter)
                    found.append(tell(said, taken))
            print(f"simulated {kind}, {name}", flush=True)
    return found


def replayed(study: Recorded) -> tuple[list[PairStopped], list[Case], list[SuiteStopped]]:
    """Return what pairs are like, measured each way, and how long that takes to a verdict."""
    pairs, cases, suites = [], [], []
    for way in WAYS:
        observed = np.array([measured(each, way, steps=study.steps) for each in study.restarts])
        logs = observed[:, 0]
        pairs.append(
            PairStopped(
                way=way.name,
                seconds=round(float(observed[:, 1].mean()), 3),
                # Robust, since strays would tell of little else.
                scatter=round(float(np.median(np.abs(logs - np.median(logs)))) * 1.4826, 5),
            )
        )
        series, seconds = drawn(observed, np.random.default_rng(SEED), TRIALS["replayed"])
        for planted in (0.0, MARGIN, LARGER):
            said, taken = judge(series + np.log1p(planted), way.rule)
            tell = partial(case, what="replayed", rule=way.name, planted=planted)
            cases.append(tell(said, taken, seconds))
        if way in (WAYS[0], WAYS[-1]):
            for pot in (False, True) if way is WAYS[-1] else (False,):
                suites += [suite(observed, way, planted, pot=pot) for planted in (0.0, LARGER)]
        print(f"replayed {way.name}", flush=True)
    return pairs, cases, suites


def suite(observed: Floats, way: Way, planted: float, *, pot: bool) -> SuiteStopped:
    """Return how long suites take, and how often they leave a figure open."""
    trials = TRIALS["suites"]
    shares = [Pot(BUDGET_S) for _ in range(trials)]
    total_s, left_open, unclear = np.zeros(trials), 0, np.zeros(trials, dtype=bool)
    for number in range(BENCHMARKS):
        series, seconds = drawn(observed, np.random.default_rng((SEED, number)), trials)
        budget_s = [each.budget_s() if pot else BUDGET_S for each in shares]
        most = 1 + np.sum(seconds < np.array(budget_s)[:, None], axis=1)
        said, taken = judge(series + np.log1p(planted), way.rule, most)
        took_s = seconds[np.arange(trials), taken - 1]
        for each, spent_s in zip(shares, took_s.tolist(), strict=True):
            each.took(spent_s)
        total_s += took_s
        left_open += int(np.sum(said == OPEN))
        unclear |= said == OPEN
    return SuiteStopped(
        way=way.name + (", shared budget" if pot else ""),
        planted=planted,
        trials=trials,
        seconds=round(float(np.median(total_s)), 1),
        figures_open=round(left_open / trials / BENCHMARKS, 4),
        suites_open=round(float(unclear.mean()), 4),
    )


def main(argv: Sequence[str]) -> int:
    """Record what is asked for, then write the figures and the page; return an exit code."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", type=int, default=0, metavar="PAIRS")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    arguments = parser.parse_args(argv)
    path = arguments.folder / f"restarts-{choose_device('cpu').hardware().key}.json"
    if arguments.record:
        record(arguments.record, path)
    if not path.exists():
        print(f"stopping: {path} is missing; --record writes it", file=sys.stderr)
        return 1
    study = msgspec.json.decode(path.read_bytes(), type=Recorded)
    pairs, cases, suites = replayed(study)
    told = StoppingCases(
        machine=f"{study.count} x {study.hardware}, torch {study.software['torch']}",
        recorded=len(study.restarts),
        budget_s=BUDGET_S,
        benchmarks=BENCHMARKS,
        pairs=pairs,
        cases=[*simulated(), *cases],
        suites=suites,
    )
    figures = msgspec.json.format(msgspec.json.encode(told), indent=1)
    write_whole(arguments.folder / "stopping.json", figures)
    write_whole(arguments.folder / "stopping.md", page(told).encode())
    print(f"wrote {arguments.folder / 'stopping.md'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
