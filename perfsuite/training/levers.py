"""Levers: what may make a training's step faster without changing what it computes.

Each is a value of the one step, off by default, and pulled on a training that was just made: its
models and optimizers are changed where they are, before the first step.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from perfsuite.devices.choice import device_of
from perfsuite.devices.device import HOST
from perfsuite.training.batches import TrainingError, map_tensors

LOADER_WORKERS = 2
PREFETCHED = 4
"""Batches that each of them has ready."""


class LeverError(TrainingError):
    """A lever that cannot be pulled on a training; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Levers:
    """Which levers are pulled.

    Attributes:
        channels_last: weights and batches of images lie with their channels last.
        fused: optimizers take their steps in one kernel, or are kept from it; None: as made.
        compile: models are compiled by `torch.compile`, for each size of a batch anew.
        graph: the step is captured as a graph, and launched at once.
        cudnn_benchmark: cuDNN tries its kernels on the first batch, and takes the fastest; but not
            where this process has chosen some for batches of that shape before, which it keeps.
        doublings: how often the batch is doubled.
    """

    channels_last: bool = False
    fused: bool | None = None
    compile: bool = False
    graph: bool = False
    cudnn_benchmark: bool = False
    doublings: int = 0

    def pull(self, parts: Mapping[str, Any], place: torch.device) -> None:
        """Change models and optimizers as the levers say.

        Raises:
            LeverError: one of them cannot be pulled, or is already.
        """
        models = [part for part in parts.values() if isinstance(part, nn.Module)]
        optimizers = [part for part in parts.values() if isinstance(part, torch.optim.Optimizer)]
        device = device_of(place)
        if self.channels_last:
            _put_channels_last(models)
        if self.fused is not None:
            _fuse(optimizers, fused=self.fused)
        if self.cudnn_benchmark and not device.has_cudnn:
            raise LeverError(f"{device.kind} has no cuDNN")
        if self.graph:
            if not device.has_graphs:
                raise LeverError(f"{device.kind} has no graphs")
            for group in _groups(optimizers):
                group.update({"capturable": True} if "capturable" in group else {})
        if self.compile:
            if not models:
                raise LeverError("no model in `state` of perfsuite.Training")
            if device.charged is not None:
                raise LeverError(f"{device.kind}: a simulated device cannot time compiled code")
            for model in models:
                model.compile(dynamic=False)  # or a batch of another size would be a slower one

    def on(self, batches: Iterator[Any]) -> Iterator[Any]:
        """Return batches as the levers want them, except for their size."""
        return map(partial(map_tensors, _channels_last), batches) if self.channels_last else batches


def _channels_last(tensor: Tensor) -> Tensor:
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor


def _put_channels_last(models: Iterable[nn.Module]) -> None:
    images = [
        parameter for model in models for parameter in model.parameters() if parameter.dim() == 4
    ]
    if not images:
        raise LeverError("no model has weights of four dimensions")
    if all(each.is_contiguous(memory_format=torch.channels_last) for each in images):
        raise LeverError("the weights are channels_last already")
    for parameter in images:
        parameter.data = _channels_last(parameter.data)


def _fuse(optimizers: Sequence[torch.optim.Optimizer], *, fused: bool) -> None:
    changed = False
    if not optimizers:
        raise LeverError("no optimizer in `state` of perfsuite.Training")
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            if "fused" not in group:
                raise LeverError(f"{type(optimizer).__name__} has no fused form")
            changed |= bool(group["fused"]) != fused
            group.update(fused=fused, foreach=None)
        # As its constructor does; by this a gradient scaler leaves its flag to the optimizer.
        optimizer._step_supports_amp_scaling = fused  # type: ignore[attr-defined]  # torch's own
    if fused and not changed:
        raise LeverError("every optimizer is fused already")


def _groups(optimizers: Iterable[torch.optim.Optimizer]) -> Iterator[dict[str, Any]]:
    return (group for optimizer in optimizers for group in optimizer.param_groups)


def prefetching(batches: Any, place: torch.device) -> DataLoader[Any]:
    """Return a DataLoader that has batches ready, in pinned memory where there is a device.

    Raises:
        LeverError: it is no DataLoader, has its own workers already, or reads a stream.
    """
    if not isinstance(batches, DataLoader):
        raise LeverError(f"batches come from a {type(batches).__name__}, not from a DataLoader")
    if batches.num_workers:
        raise LeverError(f"the loader has {batches.num_workers} workers already")
    if isinstance(batches.dataset, IterableDataset):
        raise LeverError(
            "the loader's data set is an IterableDataset, which each worker would read whole unless"
            " it shares itself out: set num_workers of the loader by hand"
        )
    order: dict[str, Any] = (
        {"batch_size": None, "sampler": batches.sampler}
        if batches.batch_sampler is None
        else {"batch_sampler": batches.batch_sampler}
    )
    return DataLoader(
        batches.dataset,
        **order,
        collate_fn=batches.collate_fn,
        worker_init_fn=batches.worker_init_fn,
        generator=batches.generator,
        num_workers=LOADER_WORKERS,
        prefetch_factor=PREFETCHED,
        persistent_workers=True,
        pin_memory=place != HOST,
    )
