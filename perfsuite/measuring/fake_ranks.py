"""Ranks that are not there: a process group of any size in one process, which no data leaves.

What that needs of torch's private parts is in here.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import torch
import torch.distributed as dist
from torch.utils._python_dispatch import TorchDispatchMode

from perfsuite.training.batches import TrainingError


class FakeRanksError(RuntimeError):
    """This torch has no fake process group; the message says what is missing, in one line."""


@contextmanager
def fake_ranks(ranks: int) -> Iterator[None]:
    """Be rank 0 of so many within: the default process group is a fake one, gone afterwards.

    A collective returns at once, and its result is of the right shape, but not of the right
    values: no gradient is averaged.

    Raises:
        TrainingError: there is a default process group already.
        FakeRanksError: this torch cannot pretend one.
    """
    if not dist.is_available():
        raise FakeRanksError(f"torch {torch.__version__} is built without torch.distributed")
    if dist.is_initialized():
        raise TrainingError(
            "there is a default process group already: call destroy_process_group before"
            " collectives are counted, which is done on a fake group, in one process"
        )
    try:
        store = import_module("torch.testing._internal.distributed.fake_pg").FakeStore()
        completed = import_module("torch._C._distributed_c10d")._create_work_from_future
    except (ImportError, AttributeError) as error:
        raise FakeRanksError(
            f"torch {torch.__version__} has no fake process group: {error}"
        ) from None
    hook = sys.excepthook  # which torch replaces, to tell the rank, and does not put back
    dist.init_process_group("fake", store=store, rank=0, world_size=ranks)
    try:
        with _Completing(completed):
            yield
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
        sys.excepthook = hook


class _Completing(TorchDispatchMode):
    """Has a fake all-reduce return its tensors, which DDP asks for, and which it forgets."""

    def __init__(self, completed: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch gives it no types
        self._completed = completed

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.name() != "c10d::allreduce_":
            return result
        reduced = list(args[0])
        # A future has to know on which accelerators its result may lie.
        devices = list({each.device for each in reduced if each.device.type != "cpu"})
        future: torch.futures.Future[Any] = torch.futures.Future(devices=devices)
        future.set_result(reduced)
        return result[0], self._completed(future).boxed()
