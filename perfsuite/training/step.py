"""The training step, written once for every precision."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from perfsuite.devices.choice import device_of
from perfsuite.devices.precision import Precision, backend_flags

Criterion = Callable[[Tensor, Tensor], Tensor]
"""From (logits, labels) to a scalar loss."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything that a step changes, copied: weights, optimizer, scaler and random state."""

    model: dict[str, Any]
    optimizer: dict[str, Any]
    scaler: dict[str, Any]
    rng: Tensor
    device_rng: Tensor | None


class TrainStep:
    """One training step: ``step(images, labels) -> loss``.

    The loss comes back detached and on the device, so that nothing in the step waits for the
    GPU. That holds for float16 too if the optimizer is a fused one; any other makes
    ``GradScaler`` read its overflow flag on the host every step.

    Args:
        model: on its device, in training mode; ``model(images)`` gives what criterion takes.

    Raises:
        DeviceError: nothing is known of devices such as the model's.
        PrecisionError: the model's device cannot do `precision`.
        ValueError: the model has no parameters, or not all on one device.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        precision: Precision = Precision.fp32,
        criterion: Criterion | None = None,
    ) -> None:
        devices = {parameter.device for parameter in model.parameters()}
        if len(devices) != 1:
            found = ", ".join(sorted(map(str, devices))) or "no parameters"
            raise ValueError(f"the model must have its parameters on one device, found {found}")
        self.device = devices.pop()
        self.precision = Precision(precision)
        device_of(self.device).require(self.precision)
        self.model = model
        self.optimizer = optimizer
        self.criterion = criterion if criterion is not None else nn.functional.cross_entropy
        self.scaler = torch.amp.GradScaler(
            self.device.type, enabled=self.precision.scales_gradients
        )
        # Made once: entering them is all that they cost a step.
        self._flags = backend_flags(self.precision)
        self._autocast = torch.autocast(
            self.device.type,
            dtype=self.precision.autocast_dtype,
            enabled=self.precision.is_amp,
        )

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Take one step and return its loss, a detached scalar on the device."""
        with self._flags:
            self.optimizer.zero_grad(set_to_none=True)
            with self._autocast:
                loss = self.criterion(self.model(images), labels)
            # A disabled scaler hands loss and optimizer through unchanged.
            self.scaler.scale(loss).backward()
            self.scaler.step(self.optimizer)
            self.scaler.update()
        return loss.detach()

    def snapshot(self) -> Snapshot:
        """Return a copy of everything that a step changes, for `restore`."""
        return Snapshot(
            model=copy.deepcopy(self.model.state_dict()),
            optimizer=copy.deepcopy(self.optimizer.state_dict()),
            scaler=copy.deepcopy(self.scaler.state_dict()),
            rng=torch.get_rng_state(),
            device_rng=device_of(self.device).random_state(),
        )

    def restore(self, snapshot: Snapshot) -> None:
        """Go back to `snapshot`, so that what follows repeats what followed it then."""
        self.model.load_state_dict(snapshot.model)
        # A deep copy, since load_state_dict keeps tensors that the next step would change.
        self.optimizer.load_state_dict(copy.deepcopy(snapshot.optimizer))
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.load_state_dict(snapshot.scaler)
        torch.set_rng_state(snapshot.rng)
        if snapshot.device_rng is not None:
            device_of(self.device).set_random_state(snapshot.device_rng)


def applied_steps(optimizer: torch.optim.Optimizer) -> int | None:
    """Return how many steps the optimizer took, or None if it keeps no count.

    A fused optimizer under a gradient scaler is called every step and decides on the device
    whether to take it, so only its own count can tell.
    """
    counts = [int(state["step"]) for state in optimizer.state.values() if "step" in state]
    return max(counts) if counts else None
