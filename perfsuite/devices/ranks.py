"""The ranks of a session, which meet to decide together: each does what rank 0 decides.

They meet over gloo, in a process group of their own, so that what a training says in the default
one is never mixed with it. Where there is one rank, nothing is said and torch.distributed not used.

What all tell all goes round by round to a rank twice as far away (Bruck's all-gather): gloo's own
goes once around the ring, in as many rounds as there are ranks.
"""

import gc
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from perfsuite.devices.device import Device
from perfsuite.devices.torchrun import RankError, Seat, seat

Value = TypeVar("Value")

_LONG = timedelta(days=7)  # who does not come is told by what watches over the ranks, and sooner

Swap = Callable[[Tensor, int, int], Tensor]
"""Sends a tensor to one rank; returns what another sent, of the same shape."""


def exchanged(own: Tensor, at: int, of: int, swap: Swap) -> Tensor:
    """Return what each of `of` ranks gave, by rank, to the one at `at`: (of, *own.shape).

    It takes log2(of) rounds, rounded up, and each rank sends `of` - 1 times `own` in all.
    """
    known = own.unsqueeze(0)  # of this rank, the next one, and so on
    while (far := len(known)) < of:
        given = known[: min(far, of - far)]
        known = torch.cat([known, swap(given, (at - far) % of, (at + far) % of)])
    return known.roll(at, dims=0)


class Ranks:
    """All ranks of a session, seen from one of them; every method is called by all of them.

    Attributes:
        seat: this one's.
        entered, passed: meetings to which it came, and in which all did.
        on_lost: called with the error of a meeting that the others cannot come to any more.
        works_alone: whether this one does what the others wait for, however long it takes.
    """

    def __init__(self, at: Seat | None = None, group: Any = None) -> None:
        self.seat = Seat() if at is None else at
        self.entered = self.passed = 0
        self.on_lost: Callable[[RuntimeError], None] | None = None
        self.works_alone = False
        self._group = group

    def __len__(self) -> int:
        """Return how many they are."""
        return self.seat.ranks

    @property
    def many(self) -> bool:
        """Whether there is more than one."""
        return len(self) > 1

    def each(self, value: Value) -> list[Value]:
        """Return what each of them gave, by rank."""
        if not self.many:
            return [value]
        own = torch.frombuffer(bytearray(pickle.dumps(value)), dtype=torch.uint8)
        sizes = [int(size) for (size,) in self.numbers(len(own))]
        row = torch.zeros(max(sizes), dtype=torch.uint8, device="cpu")
        row[: len(own)] = own
        told = self._exchanged(row).numpy()
        return [
            pickle.loads(each[:size].tobytes())  # of our own ranks
            for each, size in zip(told, sizes, strict=True)
        ]

    def numbers(self, *own: float) -> list[tuple[float, ...]]:
        """Return the numbers that each of them gave, by rank; all give as many.

        Quicker than `each`, for what is asked at each block.
        """
        if not self.many:
            return [own]
        row = torch.tensor(own, dtype=torch.float64, device="cpu")  # whatever the default is
        return list(map(tuple, self._exchanged(row).tolist()))

    def gathered(self, value: Value) -> list[Value]:
        """Return to rank 0 what each of them gave, by rank; nothing to the others."""
        if not self.many:
            return [value]
        given: list[Any] = [None] * len(self) if self.seat.leads else []
        with self.meeting():
            dist.gather_object(value, given or None, dst=0, group=self._group)
        return given

    def of_this_node(self, own: float) -> list[float]:
        """Return the number that each rank of this rank's machine gave."""
        size = self.seat.local_ranks
        first = self.seat.rank // size * size
        return [given for (given,) in self.numbers(own)[first : first + size]]

    def agreed(self, value: Value, *, of: int = 0) -> Value:
        """Return what one of them gave, rank 0 unless another is named."""
        if not self.many:
            return value
        held = [value]
        with self.meeting():
            dist.broadcast_object_list(held, src=of, group=self._group)
        return held[0]

    def meet(self) -> None:
        """Wait until all are here."""
        if self.many:
            with self.meeting():
                dist.barrier(group=self._group)

    @contextmanager
    def meeting(self) -> Iterator[None]:
        """Count what is waited for in here as a meeting."""
        self.entered += 1
        try:
            yield
        except RuntimeError as error:  # of gloo, or of a store
            if self.on_lost is not None:
                self.on_lost(error)
            raise
        self.passed += 1

    def _exchanged(self, own: Tensor) -> Tensor:
        def swap(given: Tensor, to: int, source: int) -> Tensor:
            got = torch.empty_like(given)
            sent = dist.isend(given, to, group=self._group)
            dist.recv(got, source, group=self._group)
            assert sent is not None  # who is asked belongs to the group
            sent.wait()
            return got

        with self.meeting():
            return exchanged(own, self.seat.rank, len(self), swap)


_joined = [Ranks()]


def ranks() -> Ranks:
    """Return the ranks that this process has joined, itself alone if none."""
    return _joined[-1]


def join(device: Device, at: Seat | None = None, store: Any = None) -> Ranks:
    """Join the ranks that torchrun started, by way of the default process group; return them.

    The group is of gloo, and on an accelerator of its own library too; one that is there already
    is used. They find each other by `store`, a torch.distributed.Store; without one, as the
    environment says.

    Raises:
        RankError: they cannot work together.
    """
    at = seat() if at is None else at
    if at.ranks == 1 or ranks().many:
        return ranks()
    if not dist.is_available():
        raise RankError(f"torch {torch.__version__} is built without torch.distributed")
    if not dist.is_initialized():
        backend = "gloo" if device.computes_on_host else f"cpu:gloo,{device.collectives}"
        try:
            dist.init_process_group(backend, store=store, rank=at.rank, world_size=at.ranks)
        except (ValueError, RuntimeError) as error:
            why = str(error).partition("\n")[0]
            raise RankError(f"rank {at.rank} of {at.ranks} cannot join the others: {why}") from None
    _joined.append(Ranks(at, dist.new_group(backend="gloo", timeout=_LONG)))
    return ranks()


def leave() -> None:
    """Leave them, and end the default process group: the session is over."""
    if ranks().many:
        _joined.pop()
        gc.collect()  # trainings that are gone hold groups, which should end before Python does
        dist.destroy_process_group()
