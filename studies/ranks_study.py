"""Is a slow rank named, and no healthy one? On two real ranks, with gloo.

    python studies/ranks_study.py              # what is recorded is not repeated

On a machine that does nothing else. Each trial is a fresh pair of ranks that train a small network
with DDP. In half of them one rank, now this one and now that, computes for 15 % longer; in the
others none does.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch
from recordings import write_whole
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from perfsuite.devices.cpu import Cpu
from perfsuite.devices.host import read_host
from perfsuite.devices.precision import Precision
from perfsuite.devices.ranks import leave
from perfsuite.judging.gates import Outcome, Verdict
from perfsuite.judging.thresholds import load_thresholds
from perfsuite.measuring.bench import Bench
from perfsuite.measuring.machine import machine
from perfsuite.measuring.rank_turns import take_rank_turns
from perfsuite.measuring.turns import Alone
from perfsuite.records.notes import Notes
from perfsuite.training.workload import Training, Workload

ROOT = Path(__file__).parent.parent
RANKS, SLOWER, TRIALS, BUDGET_S = 2, 0.15, 10, 60.0
WIDTH, LAYERS, SAMPLES = 256, 4, 64


class RankTrial(msgspec.Struct, frozen=True, kw_only=True):
    """What was said of two ranks, of which one was slower, or none."""

    slow: int | None
    outcome: str
    figure: str
    rounds: int
    took_s: float
    load_1min: float | None  # of the machine, at the end

    @property
    def right(self) -> bool:
        """Whether the slow rank, and no other, was named; of a healthy pair, none."""
        if self.slow is None:
            return self.outcome != Outcome.FAIL
        if self.outcome != Outcome.FAIL:
            return False
        return [part.split()[1] for part in self.figure.split("; ")] == [str(self.slow)]


class RanksStudy(msgspec.Struct, kw_only=True):
    """All trials of one machine."""

    hardware: str
    torch: str
    margin: float
    trials: list[RankTrial]


def slowed(step: Callable[[Any], Tensor], share: float) -> Callable[[Any], Tensor]:
    """Return a step that computes for longer by a share of its own time, waiting left out."""

    def slow(batch: Any) -> Tensor:
        began_s = time.thread_time()
        loss = step(batch)
        end_s = began_s + (1 + share) * (time.thread_time() - began_s)
        while time.thread_time() < end_s:
            pass
        return loss

    return slow


def workload(slow: int | None) -> Workload:
    """Return a small network, trained with DDP, that rank `slow` trains more slowly."""

    def make(_: Precision, device: torch.device, seed: int) -> Training:
        layers = [each for _ in range(LAYERS) for each in (nn.Linear(WIDTH, WIDTH), nn.ReLU())]
        model = DistributedDataParallel(nn.Sequential(*layers).to(device))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

        def step(batch: Tensor) -> Tensor:
            optimizer.zero_grad()
            loss: Tensor = model(batch).square().mean()
            loss.backward()
            optimizer.step()
            return loss

        mine = slow is not None and torch.distributed.get_rank() == slow
        batch = torch.randn(SAMPLES, WIDTH, generator=torch.Generator().manual_seed(seed))
        state = [model, optimizer]
        return Training(step=slowed(step, SLOWER) if mine else step, batches=[batch], state=state)

    return Workload(name=f"{LAYERS} layers of {WIDTH}", make=make, data="random")


def judge_here(slow: int | None, budget_s: float) -> Verdict:
    """Judge the ranks that this process is one of."""
    on = machine("cpu")
    bench = Bench(
        Notes("ranks", markers=[]),
        machine=on,
        workload=workload(slow),
        thresholds=load_thresholds(ROOT / "none", on.hardware.key),
        turns=Alone(lambda *_: None, budget_s=budget_s, now=on.time_s),
    )
    take_rank_turns(bench, Precision.fp32)
    verdict = next(each for each in bench.notes.verdicts if each.gate == "slow_ranks")
    if on.ranks.seat.leads:
        rounds = len(bench.notes.times_s) // 2
        told = {"outcome": verdict.outcome, "figure": verdict.figure, "rounds": rounds}
        print(msgspec.json.encode(told).decode(), flush=True)
    leave()
    return verdict


def trial(slow: int | None, budget_s: float) -> RankTrial:
    """Start two ranks, and return what they said."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={RANKS}"]
    asked = ["--once", "--budget", str(budget_s)]
    asked += [] if slow is None else ["--slow", str(slow)]
    began_s = time.monotonic()
    command = [sys.executable, *torchrun, __file__, *asked]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    told = msgspec.json.decode(done.stdout.strip().splitlines()[-1])
    took_s = time.monotonic() - began_s
    return RankTrial(slow=slow, took_s=took_s, load_1min=read_host().load_1min, **told)


def planned(trials: int) -> list[int | None]:
    """Return what is planted in each trial, all kinds mixed, so that no hour favours one."""
    return [each for index in range(trials) for each in (index % RANKS, None)]


def page(study: RanksStudy) -> str:
    """Return the study as Markdown."""
    slow = [each for each in study.trials if each.slow is not None]
    healthy = [each for each in study.trials if each.slow is None]
    lines = [
        "# Is a slow rank named?",
        "",
        f"Two ranks on {study.hardware}, gloo, torch {study.torch}: {LAYERS} layers of {WIDTH} with"
        f" DDP, judged with a margin of {study.margin:.0%}. In some trials one rank computed for"
        f" {SLOWER:.0%} longer. Written by `python studies/ranks_study.py`.",
        "",
        "| planted | trials | right | FAIL | INCONCLUSIVE | PASS | s a trial, at most |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for what, group in ((f"+{SLOWER:.0%} on one rank", slow), ("nothing", healthy)):
        if group:
            said = [each.outcome for each in group]
            counts = [said.count(each) for each in ("FAIL", "INCONCLUSIVE", "PASS")]
            right, most_s = sum(each.right for each in group), max(each.took_s for each in group)
            cells = [what, len(group), right, *counts, f"{most_s:.0f}"]
            lines.append("| " + " | ".join(map(str, cells)) + " |")
    lines += [
        "",
        "Right is that the slow rank is named and no other one, or that none is where nothing was"
        " planted.",
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the trials that are not recorded, and write figures and page after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=TRIALS, help="of each kind")
    parser.add_argument("--budget", type=float, default=BUDGET_S, help="seconds of turns of each")
    parser.add_argument("--folder", type=Path, default=ROOT / "docs" / "studies")
    parser.add_argument("--once", action="store_true", help="be one of the ranks of a trial")
    parser.add_argument("--slow", type=int, help="the rank that is slow in it")
    given = parser.parse_args(arguments)
    if given.once:
        judge_here(given.slow, given.budget)
        return 0
    hardware = Cpu().hardware().of_ranks(1, RANKS)
    path = given.folder / f"ranks-{hardware.key}.json"
    study = RanksStudy(
        hardware=hardware.name,
        torch=str(torch.__version__).partition("+")[0],
        margin=load_thresholds(ROOT / "none", hardware.key).slow_ranks.margin,
        trials=[],
    )
    if path.exists():
        study = msgspec.json.decode(path.read_bytes(), type=RanksStudy)
    for slow in planned(given.trials)[len(study.trials) :]:
        study.trials.append(trial(slow, given.budget))
        print(study.trials[-1])
        write_whole(path, msgspec.json.format(msgspec.json.encode(study), indent=1))
    write_whole(path.with_suffix(".md"), page(study).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
