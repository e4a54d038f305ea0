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


def activation_bytes(step: TrainStep, images: Tensor, labels: Tensor) -> int:
    """Take one step and return the bytes that its forward pass kept for its backward pass.

    Counted as the backward pass begins, without branches dropped on the way. Each storage
    counts once, parameters and buffers do not; autocast's copies of the weights do.
    """
    model = step.model
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    saved: list[weakref.ref[Tensor]] = []
    counted: list[int] = []

    def count() -> int:
        storages = [kept.untyped_storage() for each in saved if (kept := each()) is not None]
        sizes = {storage.data_ptr(): storage.nbytes() for storage in storages}
        return sum(nbytes for address, nbytes in sizes.items() if address not in own)

    def pack(tensor: Tensor) -> Tensor:
        # Detached, or an output would keep its own graph, and that the output, for ever.
        kept = tensor.detach()
        saved.append(weakref.ref(kept))  # which dies with autograd's own reference
        return kept

    def unpack(kept: Tensor) -> Tensor:
        if not counted:
            counted.append(count())
        return kept

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        step(images, labels)
    return counted[0] if counted else count()  # no backward pass unpacks nothing


def peak_memory(
    workload: Workload, precision: Precision, device: Device, batches: Batches
) -> PeakMemory | None:
    """Return a fresh step's peak after half of the batches; None where the device counts none."""
    half = len(batches) // 2
    built: list[TrainStep] = []

    def take(some: Batches) -> None:
        for images, labels in some:
            built[0](images, labels)

    def warm_up() -> None:
        built.append(workload.step(precision, device.place, seed=0))
        take(batches[:half])

    return device.peak_memory(warm_up, lambda: take(batches[half:]))
