"""Ranks that are not there: a process group of any size in one process, which no data leaves.

What that needs of torch's private parts is in here.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from typing import Any

import torch
import torch.distributed as dist

from perfsuite.training.batches import TrainingError

INSTANT = "perfsuite_instant"
"""The backend of process groups whose collectives return at once, once `instant` was called."""


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
    backend = instant()
    if dist.is_initialized():
        raise TrainingError(
            "there is a default process group already: call destroy_process_group before"
            " collectives are counted, which is done on a fake group, in one process"
        )
    store = import_module("torch.testing._internal.distributed.fake_pg").FakeStore()
    hook = sys.excepthook  # which torch replaces, to tell the rank, and does not put back
    dist.init_process_group(backend, store=store, rank=0, world_size=ranks)
    try:
        yield
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
        sys.excepthook = hook


def instant() -> str:
    """Return the name of a backend whose collectives return at once, for groups of any rank.

    Raises:
        FakeRanksError: this torch has none.
    """
    if not dist.is_available():
        raise FakeRanksError(f"torch {torch.__version__} is built without torch.distributed")
    try:
        _register(import_module("torch._C._distributed_c10d"))
    except (ImportError, AttributeError) as error:
        raise FakeRanksError(
            f"torch {torch.__version__} has no fake process group: {error}"
        ) from None
    return INSTANT


@cache
def _register(private: Any) -> None:
    fake, completed = private.FakeProcessGroup._create_internal, private._create_work_from_future

    class Instant(dist.ProcessGroup):
        """Torch's fake group, whose all-reduce returns its tensors: DDP asks for them."""

        def allreduce(self, tensors: Any, *options: Any) -> Any:
            super().allreduce(tensors, *options)
            reduced = [tensors] if isinstance(tensors, torch.Tensor) else list(tensors)
            # A future has to know on which accelerators its result may lie.
            devices = list({each.device for each in reduced if each.device.type != "cpu"})
            future: torch.futures.Future[Any] = torch.futures.Future(devices=devices)
            future.set_result(reduced)
            return completed(future)

    def create(asked: Any, _: Any) -> Instant:
        group = Instant(asked.group_rank, asked.group_size)
        custom = dist.ProcessGroup.BackendType.CUSTOM
        group._set_default_backend(custom)
        backend = fake(asked.group_rank, asked.group_size, None)
        for device in devices:
            group._register_backend(torch.device(device), custom, backend)
        return group

    accelerator = torch.accelerator.current_accelerator()
    devices = ["cpu"] if accelerator is None else ["cpu", accelerator.type]
    dist.Backend.register_backend(INSTANT, create, extended_api=True, devices=devices)
