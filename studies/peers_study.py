"""Does a step take as long by perfsuite's clock as by that of others? Both in turns.

    python studies/peers_study.py              # what is recorded is not repeated

The peer is `torch.utils.benchmark.Timer`, which calls the plain step; perfsuite times the arm that
it makes of it. Both take the very same step, of one model in one process, in one float32
arithmetic, by the host's clock: what differs is the harness. timm's own benchmark.py is not in its
wheel.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch
from peer_workloads import peer_workloads
from recordings import write_whole
from torch.utils.benchmark import Timer

from perfsuite import Arm, Precision, Training, Verdict, Workload
from perfsuite.devices.choice import choose_device
from perfsuite.devices.device import Clock
from perfsuite.devices.host import read_host
from perfsuite.devices.precision import backend_flags
from perfsuite.judging.blocks import Block, Turn
from perfsuite.judging.gates import Outcome, equivalent
from perfsuite.judging.interleaving import Duet, duet
from perfsuite.measuring.timing import time_block, warm_up
from perfsuite.records.wording import quantity

ROOT = Path(__file__).parent.parent
MARGIN, CONFIDENCE, BUDGET_S = 0.02, 0.99, 300.0


class PeerCase(msgspec.Struct, frozen=True, kw_only=True):
    """One training in one precision, timed by both: A is perfsuite, B its peer."""

    workload: str
    data: str
    precision: str
    steps: int  # of a block
    order: str
    step_s: list[float]  # by block, in that order
    load_1min: float | None  # of the machine, at the end

    def turns(self) -> Duet:
        """Return the turns that both took."""
        blocks = [Block(steps=self.steps, wall_s=step_s) for step_s in self.step_s]
        return Duet.of_turns(self.order, blocks)


class PeersStudy(msgspec.Struct, kw_only=True):
    """All cases of one machine."""

    hardware: str
    torch: str
    cases: list[PeerCase]


def judge(turns: Duet) -> Verdict:
    """Judge whether perfsuite's step time is its peer's, within the margin on either side."""
    return equivalent("peer", turns.ratio("A", over="B", confidence=CONFIDENCE), MARGIN)


def timed_by_peer(
    step: Callable[[Any], Any], batch: Any, steps: int, precision: Precision, **clock: Any
) -> Turn:
    """Return a turn of PyTorch's own timer; as many threads compute as otherwise."""
    known = {"step": step, "batch": batch}
    timer = Timer("step(batch)", globals=known, num_threads=torch.get_num_threads(), **clock)

    def timed() -> Block:
        with backend_flags(precision):  # as the arm has them; torch's own mix TF32 with fp32
            return Block(steps=steps, wall_s=timer.timeit(steps).mean)

    return timed


def timed_by_us(arm: Arm, clock: Clock, steps: int) -> Turn:
    """Return a turn of perfsuite's, by the host's clock, which is the only one that Timer has."""
    return lambda: Block(steps=steps, wall_s=time_block(arm, clock, steps).wall_s)


def side_by_side(
    arm: Arm, step: Callable[[Any], Any], clock: Clock, *, steps: int, budget_s: float, **timer: Any
) -> Duet:
    """Let perfsuite time an arm, and its peer the step that it was made of, in turns."""
    (batch,) = arm.take(1)
    return duet(
        timed_by_us(arm, clock, steps),
        timed_by_peer(step, batch, steps, arm.precision, **timer),
        clear=lambda turns: judge(turns).outcome is not Outcome.INCONCLUSIVE,
        budget_s=budget_s,
    )


def run_case(workload: Workload, precision: Precision, budget_s: float) -> PeerCase:
    """Time a training in a precision until the verdict is clear, or the budget is spent."""
    made: list[Training] = []

    def make(*about: Any) -> Training:
        made.append(workload.make(*about))
        return made[-1]

    device = choose_device("auto")
    own = Workload(name=workload.name, make=make)
    arm, clock, steps = own.arm(precision, device.place), device.clock(), workload.block_steps
    warm_up(arm, clock, steps=steps)
    turns = side_by_side(arm, made[0].step, clock, steps=steps, budget_s=budget_s)
    return PeerCase(
        workload=workload.name,
        data=workload.data,
        precision=str(precision),
        steps=steps,
        order=turns.order,
        step_s=[block.wall_s for block in turns.blocks],
        load_1min=read_host().load_1min,
    )


def page(study: PeersStudy) -> str:
    """Return the report as Markdown."""
    loads = [case.load_1min for case in study.cases if case.load_1min is not None]
    busy = f"; one-minute load {min(loads):.1f} to {max(loads):.1f}" if loads else ""
    lines = [
        "# Beside other benchmarks",
        "",
        f"{study.hardware}, torch {study.torch}{busy}. Written by `python studies/peers_study.py`.",
        "",
        "Two trainings that perfsuite was not written for, torchvision's ResNet-50 and a GPT-2 of"
        " Transformers, timed by perfsuite and by `torch.utils.benchmark.Timer`. Both take the very"
        " same step, of one model in one process, in turns, so that what the machine does to one it"
        " does to the other; what is left is what a harness adds. timm's own `benchmark.py` is not"
        " in its wheel.",
        "",
        f"A verdict is PASS where the whole interval, at {CONFIDENCE:.0%}, is within"
        f" {MARGIN:.0%} of one, on either side.",
        "",
        "| training | batch | precision | perfsuite | Timer | perfsuite / Timer | verdict |",
        "| --- | --- | --- | ---: | ---: | --- | --- |",
    ]
    for case in study.cases:
        turns = case.turns()
        ours, theirs = (
            quantity(sorted(times)[len(times) // 2], "s")
            for times in (turns.times_s("A"), turns.times_s("B"))
        )
        said = judge(turns)
        why = f": {said.reason}" if said.reason else ""
        lines.append(
            f"| {case.workload} | {case.data} | {case.precision} | {ours} | {theirs}"
            f" | {said.figure} | {said.outcome}{why} |"
        )
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str]) -> int:
    """Time the cases that are still missing, then report; return an exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, default=ROOT / "docs" / "studies")
    parser.add_argument("--budget", type=float, default=BUDGET_S, help="seconds of a case")
    asked = parser.parse_args(argv)
    device = choose_device("auto")
    where = device.hardware()
    path = asked.folder / f"peers-{where.key}.json"
    study = PeersStudy(hardware=str(where), torch=str(torch.__version__), cases=[])
    if path.exists():
        try:
            recorded = msgspec.json.decode(path.read_bytes(), type=PeersStudy)
        except (OSError, msgspec.DecodeError) as error:
            print(f"peers: {path}: cannot be read: {error}; move it away", file=sys.stderr)
            return 1
        if recorded.torch != study.torch:
            print(
                f"peers: {path} was recorded with torch {recorded.torch}; move it away",
                file=sys.stderr,
            )
            return 1
        study = recorded
    known = {(case.workload, case.precision) for case in study.cases}
    try:
        for workload in peer_workloads(large=not device.computes_on_host):
            for precision in device.precisions:
                if (workload.name, str(precision)) in known:
                    continue
                case = run_case(workload, precision, asked.budget)
                study.cases.append(case)
                write_whole(path, msgspec.json.format(msgspec.json.encode(study), indent=1))
                print(f"{workload.name} in {precision}: {judge(case.turns())}", flush=True)
    except KeyboardInterrupt:
        print(f"\npeers: {len(study.cases)} cases are kept in {path}", file=sys.stderr)
        return 130
    write_whole(path.with_suffix(".md"), page(study).rstrip().encode())
    print(f"wrote {path.with_suffix('.md')}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
