"""Memory of a training step: what autograd keeps for backward, and the device's peak."""

import weakref
from collections.abc import Sequence

import torch
from torch import Tensor

from perfsuite.devices.device import Device, PeakMemory
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


def peak_memory(
    workload: Workload, precision: Precision, device: Device, batches: Batches
) -> PeakMemory | None:
    """Build a step, warm it up with the first half of the batches, measure on the second.

    Everything built is freed again. None where the device counts no memory.
    """
    half = len(batches) // 2
    built: list[TrainStep] = []

    def take(some: Batches) -> None:
        for images, labels in some:
            built[0](images, labels)

    def warm_up() -> None:
        built.append(workload.step(precision, device.place, seed=0))
        take(batches[:half])

    return device.peak_memory(warm_up, lambda: take(batches[half:]))
