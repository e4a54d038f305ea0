"""Memory of a training step: what autograd keeps for backward, and the device's peak."""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from perfsuite.devices.device import Device, PeakMemory
from perfsuite.training.arm import Arm
from perfsuite.training.batches import doubled, map_tensors
from perfsuite.training.parallel import local_of


def activation_bytes(arm: Arm, batch: Any) -> int:
    """Take one step and return the bytes that its forward pass kept for its backward pass.

    Counted as the backward pass begins, without branches dropped on the way. Each storage
    counts once, parameters and buffers do not; autocast's copies of the weights do.
    """
    tensors = [t for model in arm.models for t in (*model.parameters(), *model.buffers())]
    own = {local_of(tensor).untyped_storage().data_ptr() for tensor in tensors}
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

    own_storage = map_tensors(torch.clone, batch)  # which may be a view of a whole data set
    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        arm.step(own_storage)
    return counted[0] if counted else count()  # no backward pass unpacks nothing


def activation_bytes_per_sample(arm: Arm) -> float:
    """Return how the bytes kept grow with the batch, which leaves copies of weights out."""
    (batch,) = arm.take(1)
    few, many = (activation_bytes(arm, each) for each in (batch, doubled(batch)))
    arm.has_trained()
    return (many - few) / arm.samples(batch)


def peak_memory(make: Callable[[], Arm], device: Device, *, steps: int) -> PeakMemory | None:
    """Return a fresh arm's peak after half of its steps; None where the device counts none."""
    made: list[Arm] = []
    half = steps // 2

    def take(count: int) -> None:
        for batch in made[0].take(count):
            made[0].step(batch)

    def warm_up() -> None:
        made.append(make())
        take(half)

    peak = device.peak_memory(warm_up, lambda: take(steps - half))
    for arm in made:
        arm.has_trained()
    return peak
