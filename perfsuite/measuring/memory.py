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


class _Saved:  # lives for as long as autograd keeps the tensor
    __slots__ = ("__weakref__", "tensor")

    def __init__(self, tensor: Tensor) -> None:
        # Detached, or an output would keep its own graph, and that the output, for ever.
        self.tensor = tensor.detach()


def activation_bytes(step: TrainStep, images: Tensor, labels: Tensor) -> int:
    """Take one step and return the bytes that its forward pass kept for its backward pass.

    Counted as the backward pass begins, without branches dropped on the way. Each storage
    counts once, parameters and buffers do not; autocast's copies of the weights do.
    """
    model = step.model
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    saved: weakref.WeakSet[_Saved] = weakref.WeakSet()
    counted: list[int] = []

    def count() -> int:
        storages = [each.tensor.untyped_storage() for each in saved]
        kept = {storage.data_ptr(): storage.nbytes() for storage in storages}
        return sum(nbytes for address, nbytes in kept.items() if address not in own)

    def pack(tensor: Tensor) -> _Saved:
        each = _Saved(tensor)
        saved.add(each)
        return each

    def unpack(each: _Saved) -> Tensor:
        if not counted:
            counted.append(count())
        return each.tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        step(images, labels)
    return counted[0] if counted else count()  # no backward pass unpacks nothing


def peak_memory(
    workload: Workload, precision: Precision, device: Device, batches: Batches
) -> PeakMemory | None:
    """Measure a fresh step on half of the batches, warmed up by the others, and free it again.

    None where the device counts no memory.
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
