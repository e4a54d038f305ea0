"""What does the tutorial's step tell other ranks, and how long does counting it take?

    python studies/collectives_study.py        # a minute; writes docs/studies/collectives.md

Counts are the same on every machine with one version of torch; seconds are this machine's, of one
thread, and none of them is judged.
"""

import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import torch
from recordings import write_whole
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from perfsuite import TUTORIAL_CFG, Precision, Training, TrainStep, Workload, build_model
from perfsuite.judging.counts import Ledger
from perfsuite.measuring.collective_counts import RANKS, count_collectives

FOLDER = Path(__file__).parent.parent / "docs" / "studies"
REPEATS = 3
IMAGES = 2


class CollectivesCase(msgspec.Struct, frozen=True, kw_only=True):
    """What one step was counted to do, on so many ranks."""

    training: str
    ranks: int
    collectives: dict[str, int]  # by kind
    nbytes: int
    parameters: int  # on a rank
    count_s: float  # median
    torch: str


def each_layer(model: nn.Sequential) -> nn.Module:
    """Shard layers that have weights, each by itself, and the whole."""
    for layer in model:
        if list(layer.parameters()):
            fully_shard(layer)
    fully_shard(model)
    return model


def at_once(model: nn.Sequential) -> nn.Module:
    """Shard the model as one."""
    fully_shard(model)
    return model


TRAININGS: dict[str, Callable[[nn.Sequential], nn.Module]] = {
    "DDP": DistributedDataParallel,
    "FSDP2, each layer": each_layer,
    "FSDP2, the whole": at_once,
}


def workload(name: str) -> Workload:
    """Return the tutorial's step on random images, by one of TRAININGS."""

    def make(precision: Precision, *_: Any) -> Training:
        model = TRAININGS[name](build_model(TUTORIAL_CFG))
        step = TrainStep(model, torch.optim.SGD(model.parameters()), precision=precision)
        batch = (torch.randn(IMAGES, 1, 28, 28), torch.arange(IMAGES))
        return Training(step=step, batches=[batch], state=[model, step.optimizer])

    return Workload(name=name, make=make, data="random images")


def case(name: str, ranks: int, ledger: Ledger, count_s: float) -> CollectivesCase:
    """Return a ledger of one number of ranks, summed up."""
    kinds: Counter[str] = Counter()
    for counted, number in ledger.counts.items():
        phase, _, kind = counted.partition(": ")
        if kind and not phase.startswith("bytes "):
            kinds[kind.split()[0]] += number
    return CollectivesCase(
        training=name,
        ranks=ranks,
        collectives=dict(sorted(kinds.items())),
        nbytes=sum(n for counted, n in ledger.counts.items() if counted.startswith("bytes ")),
        parameters=ledger.counts["parameters on a rank"],
        count_s=count_s,
        torch=str(torch.__version__).partition("+")[0],
    )


def cases() -> list[CollectivesCase]:
    """Count all trainings on all numbers of ranks."""
    torch.set_num_threads(1)
    found = []
    for name in TRAININGS:
        count_collectives(workload(name), ranks=[2])  # what is imported on first use
        for ranks in RANKS:
            took = []
            for _ in range(REPEATS):
                began = time.perf_counter()
                ledger = count_collectives(workload(name), ranks=[ranks])
                took.append(time.perf_counter() - began)
            found.append(case(name, ranks, ledger, median(took)))
    return found


def page(told: Sequence[CollectivesCase]) -> str:
    """Return the study as Markdown."""
    lines = [
        "# What does a step tell other ranks?",
        "",
        f"The tutorial's step at its full width in float32, {IMAGES} images a rank, counted with"
        f" torch {told[0].torch} in one process by `perfsuite.count_collectives`, as"
        " [`test_collectives`](../ledger.md#collectives-without-a-cluster) does. Seconds are of one"
        f" thread, the median of {REPEATS}, and include making the model and all steps that are"
        " taken. Written by `python studies/collectives_study.py`.",
        "",
        "| training | ranks | collectives | MB handled | parameters on a rank | s to count |",
        "| --- | ---: | --- | ---: | ---: | ---: |",
    ]
    for each in told:
        kinds = ", ".join(f"{number} {kind}" for kind, number in each.collectives.items())
        lines.append(
            f"| {each.training} | {each.ranks} | {kinds} | {each.nbytes / 1e6:,.1f} |"
            f" {each.parameters:,} | {each.count_s:.1f} |"
        )
    lines += [
        "",
        "DDP broadcasts the running statistics of its normalisations in each forward pass. FSDP2"
        " pads each weight to a multiple of the ranks, so that bytes grow with them where a layer"
        " has few channels; the number of collectives does not.",
    ]
    return "\n".join(lines)


def main() -> int:
    """Run the study and write its page and its figures."""
    told = cases()
    encoded = msgspec.json.format(msgspec.json.encode(told), indent=1)
    write_whole(FOLDER / "collectives.json", encoded)
    write_whole(FOLDER / "collectives.md", page(told).encode())
    print(f"wrote {FOLDER / 'collectives.md'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
