"""What does the suite say of a GPU of which the truth is known? Truths planted on a simulated H100.

    python studies/simulated_gpu_study.py     # some minutes; writes docs/studies/simulated-gpu.md

The kernels of a step are those of the tutorial's network; time is simulated, with a seed, so that
the study needs no quiet machine and says the same on each.
"""

import math
import random
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import msgspec
from recordings import write_whole
from simulated_gpu_page import page
from simulated_gpu_truths import A_NIGHT, MARGIN, MINIMUM, SPEEDUP, TREES, TRUTHS, Truth
from simulated_processes import Process, WallClock, kernels_in

from perfsuite.against.restart import Restart
from perfsuite.against.verdicts import verdicts
from perfsuite.devices.cards import CARDS, Card
from perfsuite.devices.simulated import Simulated
from perfsuite.judging.blocks import Block
from perfsuite.judging.contamination import contamination
from perfsuite.judging.estimates import median_s
from perfsuite.judging.gates import Outcome, Verdict
from perfsuite.judging.host_bound import Load, judge_host
from perfsuite.judging.interleaving import Duet, duet, starting_order, take_turns
from perfsuite.judging.stalls import judge_speedup
from perfsuite.judging.stopping import sample
from perfsuite.judging.thresholds import AgainstLimits, Thresholds, load_thresholds
from perfsuite.judging.throttling import sift
from perfsuite.measuring.kernels import loads_of
from perfsuite.records.baseline import Baseline, compare
from perfsuite.records.schema import Benchmark, Metric, Run

FOLDER = Path(__file__).parent.parent / "docs" / "studies"
SEEDS, QUADS = 20, 2
CONFIDENCE = 0.99
BUSY = 2  # doublings of the batch, by which no step waits for its host
PRODUCTS = ("aten::convolution", "aten::convolution_backward", "aten::mm", "aten::addmm")
PROMOTED, BLOCKS = 5, 20  # runs, and blocks of a run


class SaidOf(msgspec.Struct, frozen=True, kw_only=True):
    """What was said of a truth, over all seeds: how often which word, by figure."""

    name: str
    asked: str
    precision: str
    wanted: dict[str, list[str]]
    said: dict[str, dict[str, int]]
    cases: int
    right: int  # of the cases, in which nothing else was said


def card_of(truth: Truth, seed: int, *, planted: bool = True) -> Card:
    """Return the card; what is planted in the code is slow only after."""
    card = replace(CARDS["h100"], seed=seed, held_back=truth.held_back)
    return replace(card, launch_s=card.launch_s * truth.host) if planted else card


def thresholds() -> Thresholds:
    """Return those that hold where a suite sets none."""
    return load_thresholds(FOLDER / "none", Simulated(CARDS["h100"]).hardware().key)


def of_load(process: Process, machine: WallClock, blocks: Sequence[Block]) -> Load:
    """Return what the suite finds of a process's load, once its blocks are timed."""
    machine.reach(process)
    used = sift(blocks, lambda block: bool(block.throttled)).used
    (load,) = loads_of([(process, used)], process.device)
    machine.now_s = process.device.now_s
    return load


def two_trees(truth: Truth, seed: int) -> dict[str, str]:
    """Return what is said of two trees that take turns, in pairs of processes."""
    kernels, machine = kernels_in(truth.precision), WallClock(random.Random(seed))
    asked = msgspec.structs.replace(thresholds(), against=AgainstLimits(margin=MARGIN))
    loads: list[Load] = []

    def restart(index: int) -> Restart:
        machine.start()
        before = Process(card_of(truth, seed, planted=False), 2 * index, kernels)
        after = Process(card_of(truth, seed), 2 * index + 1, kernels, truth.kernel)
        blocks: tuple[list[Block], list[Block]] = [], []
        turns = [p.turn(machine, kept) for p, kept in zip((before, after), blocks, strict=True)]
        timed = take_turns(turns[0], turns[1], index=index, quads=lambda _: QUADS)
        found = [
            of_load(process, machine, used)
            for process, used in zip((before, after), blocks, strict=True)
        ]
        loads.append(found[1])
        told = [_record(load, used) for load, used in zip(found, blocks, strict=True)]
        order = starting_order(index)
        return Restart(started=order, duets={"step_s": timed}, before=told[0], after=told[1])

    restarts = sample(
        restart,
        clear=lambda so_far: all(
            each.outcome is not Outcome.INCONCLUSIVE for each in verdicts(so_far, asked)
        ),
        budget_s=math.inf,
    )
    told = {each.gate.removeprefix("against "): each for each in verdicts(restarts, asked)}
    return {name: each.shown for name, each in told.items()} | {
        "host_bound": judge_host(loads[:1]).shown
    }


def _record(load: Load, blocks: Sequence[Block]) -> dict[str, Any]:
    seconds = {"unit": "s", "better": "lower"}
    used = sift(blocks, lambda block: bool(block.throttled)).used
    metrics = {"step_s": {"value": median_s([b.step_s for b in used]), **seconds}}
    if load.kernel_s is not None:
        metrics["kernel_s"] = {"value": load.kernel_s, **seconds}
    return {"metrics": metrics, "raw": {}}


def a_night(truth: Truth, seed: int) -> dict[str, str]:
    """Return what is said of a night beside promoted runs of the healthy code, at first sight."""
    healthy = replace(truth, kernel=1.0, host=1.0, neighbours=(), held_back=())
    promoted = [_measured(healthy, seed, number) for number in range(PROMOTED)]
    tonight = _measured(truth, seed, PROMOTED)
    baseline = Baseline(folder=Path(), runs=tuple(_run(each) for each in promoted))
    beside = contamination(tonight.state, {}, promoted=[(each.state, {}) for each in promoted])
    found = compare(baseline, tonight, thresholds().compare, beside)
    return {each.gate.removeprefix("compare "): _told(each) for each in found}


def _told(verdict: Verdict) -> str:
    excused = verdict.reason.startswith("contaminated")
    return f"{verdict.shown}: contaminated" if excused else verdict.shown


def _measured(truth: Truth, seed: int, number: int) -> Benchmark:
    """Return what one process measures of a step, as the standard benchmark does."""
    machine = WallClock(random.Random(f"{seed} {number}"))
    card = replace(card_of(truth, seed), neighbours=truth.neighbours)
    process = Process(card, number, kernels_in(truth.precision), truth.kernel)
    before = process.sensor.read()
    turn = process.turn(machine)
    blocks = [turn() for _ in range(BLOCKS)]
    load = of_load(process, machine, blocks)
    assert blocks[-1].state is not None  # it is watched
    metrics = _record(load, blocks)["metrics"]
    return Benchmark(
        key="test_step_time",
        config={},
        metrics={name: Metric(**each) for name, each in metrics.items()},
        verdicts=[],
        state={"before": asdict(before), "after": asdict(blocks[-1].state)},
    )


def _run(benchmark: Benchmark) -> Run:
    return Run(
        path=Path(),
        content=b"",
        hardware="",
        hardware_name="",
        software={},
        commit="",
        dirty=False,
        complete=True,
        against=None,
        unevaluated=[],
        baseline=[],
        items={},
        started="",
        benchmarks={benchmark.key: benchmark},
    )


def speedup(truth: Truth, seed: int) -> dict[str, str]:
    """Return what is said of mixed precision beside fp32, at a batch that keeps the device busy."""
    machine = WallClock(random.Random(seed))
    fp32, amp = (kernels_in(each, BUSY) for each in ("fp32", truth.precision))
    if not truth.pays:  # its products run as those of fp32 do
        slow = iter([kernel_s for kernel_s, name in fp32 if name in PRODUCTS])
        amp = tuple((next(slow) if name in PRODUCTS else s, name) for s, name in amp)
    arms = [Process(card_of(truth, seed), 0, kernels) for kernels in (fp32, amp)]

    def judge(turns: Duet) -> Verdict:
        return judge_speedup("amp_speedup", turns, MINIMUM, confidence=CONFIDENCE)

    turns = duet(
        *(arm.turn(machine) for arm in arms),
        clear=lambda so_far: judge(so_far).outcome is not Outcome.INCONCLUSIVE,
        budget_s=math.inf,
    )
    timed = zip(arms, (turns.blocks_of("A"), turns.blocks_of("B")), strict=True)
    loads = [of_load(arm, machine, blocks) for arm, blocks in timed]
    return {"amp_speedup": judge(turns).shown, "host_bound": judge_host(loads).shown}


ASK = {TREES: two_trees, A_NIGHT: a_night, SPEEDUP: speedup}


def case(truth: Truth, seeds: int = SEEDS) -> SaidOf:
    """Return what is said of a truth, over so many seeds."""
    said: dict[str, Counter[str]] = {name: Counter() for name in truth.said}
    right = 0
    for seed in range(seeds):
        found = ASK[truth.asked](truth, seed)
        right += all(found.get(name) in words for name, words in truth.said.items())
        for name in truth.said:
            said[name][found.get(name, "nothing")] += 1
    return SaidOf(
        name=truth.name,
        asked=truth.asked,
        precision=truth.precision,
        wanted={name: list(words) for name, words in truth.said.items()},
        said={name: dict(counts) for name, counts in said.items()},
        cases=seeds,
        right=right,
    )


def main() -> int:
    """Run the study, and write its page and its figures."""
    with ProcessPoolExecutor() as pool:
        told = list(pool.map(case, TRUTHS))
    encoded = msgspec.json.format(msgspec.json.encode(told), indent=1)
    write_whole(FOLDER / "simulated-gpu.json", encoded)
    write_whole(FOLDER / "simulated-gpu.md", page(told).encode())
    print(f"wrote {FOLDER / 'simulated-gpu.md'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
