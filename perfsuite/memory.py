"""Memory of a training step: what autograd keeps for backward, and the device's peak."""

import gc
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from perfsuite.precision import Precision
from perfsuite.step import TrainStep
from perfsuite.workload import Workload

__all__ = ["PeakMemory", "activation_bytes", "peak_memory"]

Batches = Sequence[tuple[Tensor, Tensor]]


def activation_bytes(step: TrainStep, images: Tensor, labels: Tensor) -> int:
    """Take one step and return the bytes that its forward pass kept for its backward pass.

    Each storage counts once, parameters and buffers do not; the copies of the weights that
    autocast makes do, since they live as long. The same on every device.
    """
    model = step.model
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}
    alive: list[Tensor] = []  # a freed storage's address could come again and hide the next

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor.detach())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        step(images, labels)
    return sum(kept.values())


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
