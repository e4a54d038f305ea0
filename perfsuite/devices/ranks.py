"""The ranks of a session, which meet to decide together: each does what rank 0 decides.

They meet over gloo, in a process group of their own, so that what a training says in the default
one is never mixed with it. Where there is one rank, nothing is said and torch.distributed not used.
"""

from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from perfsuite.devices.device import Device
from perfsuite.devices.torchrun import RankError, Seat, seat

Value = TypeVar("Value")

_LONG = timedelta(days=7)  # who does not come is told by what watches over the ranks, and sooner


class Ranks:
    """All ranks of a session, seen from one of them; every method is called by all of them."""

    def __init__(self, at: Seat | None = None, group: Any = None) -> None:
        self.seat = Seat() if at is None else at
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
        given: list[Any] = [None] * len(self)
        dist.all_gather_object(given, value, group=self._group)
        return given

    def agreed(self, value: Value) -> Value:
        """Return what rank 0 gave."""
        if not self.many:
            return value
        held = [value]
        dist.broadcast_object_list(held, src=0, group=self._group)
        return held[0]

    def meet(self) -> None:
        """Wait until all are here."""
        if self.many:
            dist.barrier(group=self._group)


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
        dist.destroy_process_group()
