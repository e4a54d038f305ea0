"""Batches of any form: the tensors in them, moving them to a device, and feeding them for ever.

A batch is a tensor, or a tuple, list, mapping, dataclass or object with a method ``to`` that holds
some. What is none of these is handed through.
"""

import dataclasses
import pickle
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from multiprocessing.reduction import ForkingPickler
from typing import Any

import torch
from torch import Tensor

Shapes = tuple[tuple[str, tuple[int, ...], torch.dtype], ...]
"""Name, shape and dtype of each tensor."""


class TrainingError(RuntimeError):
    """A training that cannot be measured as it is; the message says what to change."""


def fields_of(value: Any) -> dict[str, Any] | None:
    """Return what a tuple, list, mapping or dataclass holds, by name; None for anything else."""
    if isinstance(value, Mapping):
        return {f"[{key!r}]": each for key, each in value.items()}
    if isinstance(value, tuple | list):
        return {f"[{index}]": each for index, each in enumerate(value)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f".{each.name}": getattr(value, each.name) for each in dataclasses.fields(value)}
    return None


def named_tensors(value: Any, name: str = "batch") -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors in a batch, or in what a model returned, with the way to each."""
    if isinstance(value, Tensor):
        yield name, value
    for way, each in (fields_of(value) or {}).items():
        yield from named_tensors(each, name + way)


def map_tensors(change: Callable[[Tensor], Tensor], value: Any) -> Any:
    """Return a batch of the same form with each tensor changed."""
    if isinstance(value, Tensor):
        return change(value)
    fields = fields_of(value)
    if fields is None:
        return value
    made = [map_tensors(change, each) for each in fields.values()]
    if isinstance(value, Mapping):
        named = dict(zip(value, made, strict=True))
        return named if type(value) is dict else type(value)(named)  # type: ignore[call-arg]  # as dicts are made
    if isinstance(value, tuple | list):
        return type(value)(*made) if hasattr(value, "_fields") else type(value)(made)
    names = (each.name for each in dataclasses.fields(value))
    return dataclasses.replace(value, **dict(zip(names, made, strict=True)))


def moved(batch: Any, device: torch.device) -> Any:
    """Return a batch on a device; one that lies there already is not copied."""
    if callable(getattr(batch, "to", None)):
        return batch.to(device)
    # From pinned memory without a wait; from any other, a copy has been made when this returns.
    return map_tensors(lambda t: t.to(device, non_blocking=t.device.type == "cpu"), batch)


def doubled(batch: Any) -> Any:
    """Return a batch of twice as many samples; TrainingError where that cannot be made of it."""
    return _map_samples(lambda tensor: torch.cat([tensor, tensor]), batch)


def resized(batch: Any, number: int) -> Any:
    """Return a batch of so many samples: another's first, again and again where it has fewer."""

    def changed(tensor: Tensor) -> Tensor:
        if number <= len(tensor):
            return tensor[:number]
        return tensor[torch.arange(number, device=tensor.device) % len(tensor)]

    return _map_samples(changed, batch)


def joined(batches: Sequence[Any]) -> Any:
    """Return one batch of the samples of several of one form, such as those of all ranks."""
    first = batches[0]
    others = [iter([tensor for _, tensor in named_tensors(each)]) for each in batches[1:]]

    def joined_tensor(tensor: Tensor) -> Tensor:
        beside = [next(each) for each in others]
        of_samples = tensor.dim() > 0 and len(tensor) == samples_in(first)
        return torch.cat([tensor, *beside]) if of_samples else tensor

    return map_tensors(joined_tensor, first)


def _map_samples(change: Callable[[Tensor], Tensor], batch: Any) -> Any:
    """Return a batch with each tensor changed whose first dimension is that of the samples."""
    many = samples_in(batch)

    def changed(tensor: Tensor) -> Tensor:
        return change(tensor) if tensor.dim() > 0 and len(tensor) == many else tensor

    return map_tensors(changed, batch)


def samples_in(batch: Any) -> int:
    """Return how many samples a batch has, by the first dimension of its first tensor."""
    for _, tensor in named_tensors(batch):
        if tensor.dim():
            return len(tensor)
    raise TrainingError(
        "a batch without a tensor: how many samples it has must be given, as samples=... of"
        " perfsuite.Training"
    )


@dataclasses.dataclass(frozen=True)
class MicroBatches:
    """A loader's batches in lists, each for one step of the optimizer; whole lists only."""

    loader: Iterable[Any]
    number: int

    def __iter__(self) -> Iterator[list[Any]]:
        """Yield the lists of an epoch."""
        some: list[Any] = []
        for batch in self.loader:
            some.append(batch)
            if len(some) == self.number:
                yield some
                some = []


def samples_in_all(batches: list[Any]) -> int:
    """Return how many samples a list of micro-batches has."""
    return sum(samples_in(batch) for batch in batches)


def shapes_of(batch: Any) -> Shapes:
    """Return names, shapes and dtypes of the tensors in a batch."""
    found = named_tensors(batch)
    return tuple((name, tuple(tensor.shape), tensor.dtype) for name, tensor in found)


def endless(batches: Iterable[Any]) -> Iterator[Any]:
    """Yield batches for ever, beginning anew at the end; TrainingError where there are no more."""
    epoch = 0
    while True:
        empty = True
        for batch in _epoch(batches):
            empty = False
            yield batch
        if empty:
            raise TrainingError(
                "batches ran out after one epoch: they can be read only once; give a list, a"
                " DataLoader or anything else that can be read again"
                if epoch
                else "there are no batches: the data set is empty, or smaller than one batch"
            )
        epoch += 1


_UNPICKLABLE = (pickle.PicklingError, TypeError, AttributeError)  # by Python's version


def _epoch(batches: Iterable[Any]) -> Iterator[Any]:
    """Begin an epoch; TrainingError where worker processes cannot be handed what a loader holds."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Got pickle error", UserWarning)  # told below
            return iter(batches)
    except _UNPICKLABLE as error:
        handed = ("dataset", "collate_fn", "worker_init_fn", "generator")
        held = [name for name in handed if not _can_be_pickled(getattr(batches, name, None))]
        if not held:
            raise
        raise TrainingError(
            f"the DataLoader's {' and '.join(held)} cannot be pickled for its worker processes:"
            " build it of classes and functions at the top level of a module, without open files,"
            " locks and generators; or take num_workers=0"
        ) from error


def _can_be_pickled(held: Any) -> bool:
    try:
        ForkingPickler.dumps(held)
    except _UNPICKLABLE:
        return False
    return True
