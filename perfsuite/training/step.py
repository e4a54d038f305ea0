"""The training step, written once for every precision."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from perfsuite.devices.choice import device_of
from perfsuite.devices.precision import Precision, backend_flags

Criterion = Callable[[Tensor, Tensor], Tensor]  # from (logits, labels) to a scalar loss


class TrainStep:
    """One training step: ``step(images, labels) -> loss``.

    The loss is a detached scalar on the device, so that nothing in the step waits for the
    GPU. That holds for float16 too if the optimizer is a fused one; any other makes
    ``GradScaler`` read its overflow flag on the host every step.

    Raises ValueError if not all parameters are on one device, DeviceError if nothing is known
    of it, PrecisionError if it cannot do the precision.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        precision: Precision = Precision.fp32,
        criterion: Criterion = nn.functional.cross_entropy,
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
        self.criterion = criterion
        kind, dtype = self.device.type, self.precision.autocast_dtype
        self.scaler = torch.amp.GradScaler(kind, enabled=self.precision.scales_gradients)
        # Made once: entering them is all that they cost a step.
        self._flags = backend_flags(self.precision)
        self._autocast = torch.autocast(kind, dtype=dtype, enabled=self.precision.is_amp)

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Take one step and return its loss."""
        with self._flags:
            self.optimizer.zero_grad(set_to_none=True)
            with self._autocast:
                loss = self.criterion(self.model(images), labels)
            # A disabled scaler hands loss and optimizer through unchanged.
            self.scaler.scale(loss).backward()
            self.scaler.step(self.optimizer)
            self.scaler.update()
        return loss.detach()

    def restorer(self) -> Callable[[], None]:
        """Copy all that a step changes, random state included; return what goes back to that."""
        model, optimizer, scaler = (
            copy.deepcopy(each.state_dict()) for each in (self.model, self.optimizer, self.scaler)
        )
        device = device_of(self.device)
        rng, device_rng = torch.get_rng_state(), device.random_state()

        def restore() -> None:
            self.model.load_state_dict(model)
            # A deep copy, since load_state_dict keeps tensors that the next step would change.
            self.optimizer.load_state_dict(copy.deepcopy(optimizer))
            self.optimizer.zero_grad(set_to_none=True)
            self.scaler.load_state_dict(scaler)
            torch.set_rng_state(rng)
            if device_rng is not None:
                device.set_random_state(device_rng)

        return restore


def applied_steps(optimizer: torch.optim.Optimizer) -> int | None:
    """Return how many steps the optimizer took, or None if it keeps no count.

    A fused optimizer under a gradient scaler is called every step and decides on the device
    whether to take it, so only its own count can tell.
    """
    counts = [int(state["step"]) for state in optimizer.state.values() if "step" in state]
    return max(counts) if counts else None
