"""What ranks tell each other: all of it, by rank, in few rounds; of real ones over gloo too."""

import math
import multiprocessing
import queue
import threading
from collections import defaultdict
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import TCPStore  # of torch.distributed, which does not say so
from torch.multiprocessing.spawn import spawn

from perfsuite.devices.cpu import Cpu
from perfsuite.devices.ranks import Ranks, exchanged, join, leave
from perfsuite.devices.torchrun import Seat


def by_threads(ranks: int) -> tuple[list[list[float]], list[int], list[int]]:
    """Let so many threads tell each other 10 times their rank; return what each was told.

    And how many rounds it took, and how many rows were sent.
    """
    mail: dict[tuple[int, int], queue.Queue[Tensor]] = defaultdict(queue.Queue)
    told: list[list[float]] = [[]] * ranks
    rounds, rows = [0] * ranks, [0] * ranks

    def be(rank: int) -> None:
        def swap(given: Tensor, to: int, source: int) -> Tensor:
            rounds[rank] += 1
            rows[rank] += len(given)
            mail[rank, to].put(given)
            return mail[source, rank].get(timeout=60)

        told[rank] = exchanged(torch.tensor([10.0 * rank]), rank, ranks, swap).flatten().tolist()

    threads = [threading.Thread(target=be, args=(rank,)) for rank in range(ranks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return told, rounds, rows


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 5, 7, 8, 13, 32])
def test_all_are_told_all_in_log2_rounds(ranks: int) -> None:
    told, rounds, rows = by_threads(ranks)
    assert told == [[10.0 * rank for rank in range(ranks)]] * ranks
    assert rounds == [math.ceil(math.log2(ranks))] * ranks
    assert rows == [ranks - 1] * ranks


def be_a_rank(local: int, ranks: int, port: int, out: Any) -> None:
    """Join the others, ask each way, and put what was answered."""
    torch.set_num_threads(1)
    store = TCPStore("127.0.0.1", port)
    dist.init_process_group("gloo", store=store, rank=local, world_size=ranks)
    joined = join(Cpu(), Seat(rank=local, ranks=ranks, local_ranks=ranks))
    joined.meet()
    told = joined.each("x" * local * 100), joined.numbers(local, 0.5), joined.agreed(local, of=1)
    out.put((local, told, joined.agreed([local])))
    joined.meet()
    leave()


@pytest.mark.slow
def test_real_ranks_are_told_by_gloo() -> None:
    ranks = 3
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    out: Any = multiprocessing.get_context("spawn").SimpleQueue()
    spawn(be_a_rank, (ranks, store.port, out), nprocs=ranks)
    texts = ["", "x" * 100, "x" * 200]
    told = texts, [(0.0, 0.5), (1.0, 0.5), (2.0, 0.5)], 1
    assert sorted(out.get() for _ in range(ranks)) == [(rank, told, [0]) for rank in range(ranks)]


def test_alone_numbers_are_ones_own() -> None:
    assert Ranks().numbers(1.5, 2.0) == [(1.5, 2.0)]


def test_what_ranks_tell_lies_on_the_host_whatever_a_project_makes_its_default() -> None:
    told = Ranks(Seat(ranks=2, local_ranks=2))
    told._exchanged = lambda own: torch.stack([own, own])  # type: ignore[method-assign]  # no group
    with torch.device("meta"):
        assert told.numbers(1.0, 2.0) == [(1.0, 2.0)] * 2
        assert told.each("a") == ["a", "a"]
