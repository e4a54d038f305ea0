"""What does a block cost the harness on very many ranks, and what grows with their number?

    python studies/scale_study.py         # minutes; measures, and writes what follows
    python studies/scale_study.py --page  # writes docs/scale.md again from docs/studies/scale.json

Real processes tell each other over gloo, as many as one machine takes. They share its cores, so
what is measured is the CPU time of a call, in each process. What a call takes on machines of their
own is a model: that CPU time, and a message's way through the network for each round. Bytes, rounds
and sizes are exact on any number of ranks: one process exchanges with ranks that are not there.
"""

import multiprocessing
import os
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import numpy as np
import torch
import torch.distributed as dist
from recordings import write_whole
from scale_page import LAZY, PAGE, PER_BLOCK, RING, MadeUpRanks, RealRanks, ScaleStudy, write_page
from torch import Tensor
from torch._C._distributed_c10d import FileStore  # of torch.distributed, which does not say so
from torch.multiprocessing.spawn import start_processes

from perfsuite.devices.host import cpu_name, usable_cpus
from perfsuite.devices.rank_facts import shared_facts
from perfsuite.devices.ranks import Ranks, exchanged
from perfsuite.devices.torchrun import Seat
from perfsuite.judging.blocks import Block
from perfsuite.judging.interleaving import Duet, Quad
from perfsuite.judging.rank_times import judge_slow_ranks
from perfsuite.judging.stopping import first_look
from perfsuite.judging.thresholds import SlowRanksLimits
from perfsuite.records.schema import encode

DOCS = Path(__file__).parent.parent / "docs"
FIGURES = DOCS / "studies" / "scale.json"

REAL, MADE_UP = (2, 4, 8, 16, 32), (2, 8, 64, 512, 4096)
BATCHES, CALLS = 8, 20
STEPS = 10  # of a block
QUADS = 32  # of turns in which slow ranks are judged
OWN = (0.12, None, [0.012] * STEPS, 0.11)  # what the slowest rank tells of a block


def calls_of(ranks: Ranks, group: Any) -> dict[str, Callable[[], Any]]:
    """Return what is measured, by name; the last is gloo's own, once around a ring and again."""

    def ring() -> None:
        given: list[Any] = [None] * len(ranks)
        dist.all_gather_object(given, OWN, group=group)

    return {
        "meet": ranks.meet,
        "numbers": lambda: ranks.numbers(0.12),
        "agreed": lambda: ranks.agreed(OWN),
        "each": lambda: ranks.each(OWN),
        RING: ring,
    }


def be_a_rank(rank: int, count: int, store: str, told: Any) -> None:
    """Join the others and measure; rank 0 tells of all."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=FileStore(store, count), rank=rank, world_size=count)
    before = _open_files()
    group = dist.new_group(backend="gloo")
    ranks = Ranks(Seat(rank=rank, ranks=count, local_ranks=count), group)
    found = {}
    for name, call in calls_of(ranks, group).items():
        batches_s = []
        for _ in range(BATCHES):
            ranks.meet()
            began_s = time.process_time()
            for _ in range(CALLS):
                call()
            batches_s.append((time.process_time() - began_s) / CALLS)
        # The lowest: the first one meets fresh memory, any other work of others.
        found[name] = median(own_s for (own_s,) in ranks.numbers(min(batches_s)))
    if rank == 0:
        told.put((found, _open_files() - before))
    ranks.meet()
    dist.destroy_process_group()


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def of_processes(count: int) -> RealRanks:
    """Measure on so many real processes, with all sockets at once and with those that are used."""
    found = []
    for lazy in ("0", "1"):
        os.environ[LAZY] = lazy
        told = multiprocessing.get_context("fork").SimpleQueue()
        with tempfile.TemporaryDirectory() as folder:
            arguments = (count, f"{folder}/store", told)
            start_processes(be_a_rank, arguments, nprocs=count, start_method="fork")
        found.append(told.get())
    (cpu_s, sockets), (_, lazy_sockets) = found
    return RealRanks(ranks=count, cpu_s=cpu_s, sockets=sockets, lazy_sockets=lazy_sockets)


def exchange(ranks: int) -> tuple[int, int]:
    """Return rounds and bytes sent of one exchange of a number, with ranks that are not there."""
    sent: list[int] = []

    def swap(given: Tensor, *_: int) -> Tensor:
        sent.append(given.nbytes)
        return torch.zeros_like(given)

    exchanged(torch.zeros(1, dtype=torch.float64), 0, ranks, swap)
    return len(sent), sum(sent)


def run_of(ranks: int, *, whole: bool = False) -> bytes:
    """Return a run as it would be of so many ranks: the published one, with times of ranks."""
    (path,) = (DOCS / "runs").glob("cpu-*.json")
    rng = np.random.default_rng(ranks)

    def with_ranks(found: Any) -> Any:
        if isinstance(found, dict) and {"wall_s", "steps"} <= found.keys():
            times_s = tuple((found["wall_s"] * rng.uniform(0.9, 1.0, ranks)).tolist())
            kept = Block(steps=1, wall_s=1.0, ranks_s=times_s).kept()
            return found | {
                "ranks_s": times_s if whole else kept["ranks_s"],
                "in_short": kept["in_short"],
            }
        if isinstance(found, dict):
            return {name: with_ranks(value) for name, value in found.items()}
        return list(map(with_ranks, found)) if isinstance(found, list) else found

    return encode(with_ranks(msgspec.json.decode(path.read_bytes())))


class _Alike(Ranks):
    def each(self, value: Any) -> list[Any]:
        return [msgspec.json.decode(msgspec.json.encode(value)) for _ in range(len(self))]


def turns_of(count: int) -> Duet:
    """Return turns of so many ranks together and by themselves, of which none is slow."""
    rng = np.random.default_rng(count)
    times_s = rng.lognormal(0.0, 0.01, (QUADS, 4, count)).tolist()
    return Duet(
        tuple(
            Quad(
                order="ABBA",
                blocks=tuple(
                    Block(steps=STEPS, wall_s=max(each_s), ranks_s=tuple(each_s)) for each_s in four
                ),
            )
            for four in times_s
        )
    )


def made_up(count: int) -> MadeUpRanks:
    """Compute what depends on the number of ranks alone, and time what one process does of it."""
    rounds, number_bytes = exchange(count)
    times_s = tuple(np.random.default_rng(0).uniform(0.9, 1.0, count).tolist())
    block = Block(steps=STEPS, wall_s=1.0, ranks_s=times_s)
    versions = msgspec.json.decode(run_of(1))["perfsuite"]["software"]
    here = _Alike(Seat(ranks=count, local_ranks=min(8, count)))
    turns, limits = turns_of(count), SlowRanksLimits()
    judge_s = _took_s(
        lambda: judge_slow_ranks(turns, "B", limits.margin, confidence=limits.confidence)
    )
    tracemalloc.start()
    judge_slow_ranks(turns, "B", limits.margin, confidence=limits.confidence)
    judge_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return MadeUpRanks(
        ranks=count,
        rounds=rounds,
        block_bytes=PER_BLOCK["numbers"] * number_bytes,
        run_bytes=len(run_of(count)),
        whole_run_bytes=len(run_of(count, whole=True)),
        kept_s=_took_s(block.kept),
        rounds_to_judge=first_look((1 - limits.confidence) / count),
        judge_s=judge_s,
        judge_bytes=judge_bytes,
        alike_s=_took_s(lambda: shared_facts(here, alike=versions, facts={"CPU": "a"})),
        memory_bytes=sys.getsizeof(times_s) + sum(map(sys.getsizeof, times_s)),
    )


def _took_s(work: Callable[[], Any]) -> float:
    took = []
    for _ in range(5):
        began_s = time.process_time()
        work()
        took.append(time.process_time() - began_s)
    return median(took)


def main(arguments: Sequence[str]) -> int:
    """Run the study, unless its page alone is asked for, and write both."""
    if "--page" not in arguments:
        study = ScaleStudy(
            cpu=cpu_name(),
            cores=len(usable_cpus()),
            torch=str(torch.__version__).partition("+")[0],
            real=[of_processes(count) for count in REAL],
            made_up=[made_up(count) for count in MADE_UP],
        )
        write_whole(FIGURES, msgspec.json.format(msgspec.json.encode(study), indent=1))
    write_page(msgspec.json.decode(FIGURES.read_bytes(), type=ScaleStudy))
    print(f"wrote {PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
