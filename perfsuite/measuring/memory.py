"""Memory of a training step: what autograd keeps for backward, and the device's peak."""

import gc
import weakref
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from perfsuite.devices.precision import Precision
from perfsuite.training.step import TrainStep
from perfsuite.training.workload import Workload

Batches = Sequence[tuple[Tensor, Tensor]]


class _Saved:
    """A tensor that autograd keeps, for as long as it keeps it."""

    __slots__ = ("__weakref__", "tensor")

    def __init__(self, tensor: Tensor) -> None:
        # Detached, or an output would keep its own graph, and that the output, for ever.
        self.tensor = tensor.detach()


def activation_bytes(step: TrainStep, images: Tensor, labels: Tensor) -> int:
    """Take one step and return the bytes that its forward pass kept for its backward pass.

    They are counted as the backward pass begins, so that a branch dropped on the way does not
    count. Each storage counts once, parameters and buffers do not; the copies of the weights
    that autocast makes do, since they live as long. The same on every device.
    """
    model = step.model
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    saved: weakref.WeakSet[_Saved] = weakref.WeakSet()
    counted: list[int] = []

    def count() -> None:
        storages = [each.tensor.untyped_storage() for each in saved]
        kept = {storage.data_ptr(): storage.nbytes() for storage in storages}
        counted.append(sum(nbytes for address, nbytes in kept.items() if address not in own))

    def pack(tensor: Tensor) -> _Saved:
        each = _Saved(tensor)
        saved.add(each)
        return each

    def unpack(each: _Saved) -> Tensor:
        if not counted:
            count()
        return each.tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        step(images, labels)
    if not counted:
        count()  # nothing was unpacked: there was no backward pass
    return counted[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class PeakMemory:
    """Peaks over some steps, above what was in use before the model was built.

    Attributes:
        allocated_bytes: the most that tensors held.
        reserved_bytes: the most that the caching allocator held.
        alloc_retries: how often it had to flush its cache; above zero, the peaks are the
            memory's limit and not the step's need.
    """

    allocated_bytes: int
    reserved_bytes: int
    alloc_retries: int


def peak_memory(workload: Workload, precision: Precision, batches: Batches) -> PeakMemory:
    """Build the step, warm it up with the first half of the batches, measure on the second.

    Only for a CUDA device; everything built is freed again.
    """
    device = batches[0][1].device
    gc.collect()
    torch.cuda.empty_cache()
    allocated, reserved = torch.cuda.memory_allocated(device), torch.cuda.memory_reserved(device)
    retries = _retries(device)
    step = workload.step(precision, device, seed=0)
    half = len(batches) // 2
    for images, labels in batches[:half]:
        step(images, labels)
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    for images, labels in batches[half:]:
        step(images, labels)
    torch.cuda.synchronize(device)
    peak = PeakMemory(
        allocated_bytes=torch.cuda.max_memory_allocated(device) - allocated,
        reserved_bytes=torch.cuda.max_memory_reserved(device) - reserved,
        alloc_retries=_retries(device) - retries,
    )
    del step
    gc.collect()
    torch.cuda.empty_cache()
    return peak


def _retries(device: torch.device) -> int:
    return int(torch.cuda.memory_stats(device).get("num_alloc_retries", 0))
