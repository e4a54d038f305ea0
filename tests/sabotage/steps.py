"""TrainingRun steps that are wrong in one way. Each differs from TrainStep's body by its fault."""

from typing import Any

import torch
from torch import Tensor, nn

from perfsuite.devices.precision import Precision, backend_flags
from perfsuite.training.step import TrainStep


class WithoutAutocast(TrainStep):
    """Autocast is left out."""

    def __call__(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch
        with backend_flags(self.precision):
            self.optimizer.zero_grad(set_to_none=True)
            loss = self.criterion(self.model(images), labels)
            self.scaler.scale(loss).backward()
            self.scaler.step(self.optimizer)
            self.scaler.update()
        return loss.detach()


class BackwardUnderAutocast(TrainStep):
    """The backward pass runs under autocast."""

    def __call__(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch
        with backend_flags(self.precision):
            self.optimizer.zero_grad(set_to_none=True)
            with self._autocast:
                loss = self.criterion(self.model(images), labels)
                self.scaler.scale(loss).backward()
            self.scaler.step(self.optimizer)
            self.scaler.update()
        return loss.detach()


class WithoutScaler(TrainStep):
    """Float16 without scaling the loss."""

    def __call__(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch
        with backend_flags(self.precision):
            self.optimizer.zero_grad(set_to_none=True)
            with self._autocast:
                loss = self.criterion(self.model(images), labels)
            loss.backward()
            self.optimizer.step()
        return loss.detach()


class StepOnScaledGradients(TrainStep):
    """The optimizer steps by itself, on gradients that are still scaled."""

    def __call__(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch
        with backend_flags(self.precision):
            self.optimizer.zero_grad(set_to_none=True)
            with self._autocast:
                loss = self.criterion(self.model(images), labels)
            self.scaler.scale(loss).backward()
            self.optimizer.step()
        return loss.detach()


class WithoutScale(TrainStep):
    """The scaler steps, but the loss was never scaled by it."""

    def __call__(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch
        with backend_flags(self.precision):
            self.optimizer.zero_grad(set_to_none=True)
            with self._autocast:
                loss = self.criterion(self.model(images), labels)
            loss.backward()
            self.scaler.step(self.optimizer)
            self.scaler.update()
        return loss.detach()


class WithoutUpdate(TrainStep):
    """The scaler is never updated."""

    def __call__(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch
        with backend_flags(self.precision):
            self.optimizer.zero_grad(set_to_none=True)
            with self._autocast:
                loss = self.criterion(self.model(images), labels)
            self.scaler.scale(loss).backward()
            self.scaler.step(self.optimizer)
        return loss.detach()


class ClippingScaledGradients(TrainStep):
    """Gradients are clipped before they are unscaled."""

    unscales = False

    def __call__(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch
        with backend_flags(self.precision):
            self.optimizer.zero_grad(set_to_none=True)
            with self._autocast:
                loss = self.criterion(self.model(images), labels)
            self.scaler.scale(loss).backward()
            if self.unscales:
                self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), 0.5)
            self.scaler.step(self.optimizer)
            self.scaler.update()
        return loss.detach()


class ClippingUnscaledGradients(ClippingScaledGradients):
    """Clips and is right: the healthy twin of clipping scaled gradients."""

    unscales = True


class DoubleStep(TrainStep):
    """Every step is taken twice."""

    def __call__(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        loss = super().__call__(batch)
        self.optimizer.step()
        return loss


class WithoutZeroGrad(TrainStep):
    """Gradients pile up from step to step."""

    def __call__(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch
        with backend_flags(self.precision):
            with self._autocast:
                loss = self.criterion(self.model(images), labels)
            self.scaler.scale(loss).backward()
            self.scaler.step(self.optimizer)
            self.scaler.update()
        return loss.detach()


class HalfModel(TrainStep):
    """The model itself is cast, and nothing is scaled."""

    def __call__(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch
        dtype = self.precision.autocast_dtype
        if dtype is not None and next(self.model.parameters()).dtype is not dtype:
            self.model.to(dtype)
        with backend_flags(self.precision):
            self.optimizer.zero_grad(set_to_none=True)
            loss = self.criterion(self.model(images.to(dtype or torch.float32)), labels)
            loss.backward()
            self.optimizer.step()
        return loss.detach()


class LossOutsideAutocast(TrainStep):
    """The loss is computed outside autocast, in the logits' dtype."""

    def __call__(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch
        with backend_flags(self.precision):
            self.optimizer.zero_grad(set_to_none=True)
            with self._autocast:
                logits = self.model(images)
            loss = self.criterion(logits, labels)
            self.scaler.scale(loss).backward()
            self.scaler.step(self.optimizer)
            self.scaler.update()
        return loss.detach()


class LossOnTheHost(TrainStep):
    """The loss is read every step."""

    def __call__(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        loss = super().__call__(batch)
        loss.item()
        return loss


class TF32InAnFp32Arm(TrainStep):
    """The fp32 arm is TF32 in truth."""

    def __call__(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        self._flags = backend_flags(Precision.tf32)
        return super().__call__(batch)


class WithoutScalerStep(TrainStep):
    """The scaler scales and is updated, and never takes the step."""

    def __call__(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch
        with backend_flags(self.precision):
            self.optimizer.zero_grad(set_to_none=True)
            with self._autocast:
                loss = self.criterion(self.model(images), labels)
            self.scaler.scale(loss).backward()
            self.scaler.update()
        return loss.detach()


class ZeroedGradients(TrainStep):
    """Gradients are zeroed and kept, where they could be freed."""

    def __call__(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        self.optimizer.zero_grad(set_to_none=False)
        self.optimizer.zero_grad = lambda *_, **__: None  # type: ignore[method-assign]  # the plant
        try:
            return super().__call__(batch)
        finally:
            del self.optimizer.zero_grad


class MixedApis(TrainStep):
    """The old API of TF32 is read, while a step's flags are set by the new one."""

    old = True

    def __call__(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        with backend_flags(self.precision):
            cudnn: Any = torch.backends.cudnn
            self.tf32 = cudnn.allow_tf32 if self.old else cudnn.conv.fp32_precision == "tf32"
        return super().__call__(batch)


class NewApi(MixedApis):
    """Asks the same of the new API."""

    old = False


class ScheduledAnyway(TrainStep):
    """The learning rate follows a schedule, and goes on when a step was skipped."""

    waits = False

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.schedule = torch.optim.lr_scheduler.ExponentialLR(self.optimizer, 0.9)

    def __call__(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        before = self.scaler.get_scale()
        loss = super().__call__(batch)
        if not self.waits or self.scaler.get_scale() >= before:
            self.schedule.step()
        return loss


class ScheduledIfTaken(ScheduledAnyway):
    """Follows its schedule by steps that were taken."""

    waits = True


class HugeScale(TrainStep):
    """The scaler starts at 2^40."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.scaler = torch.amp.GradScaler(
            self.device.type, init_scale=2.0**40, enabled=self.precision.scales_gradients
        )


class GrowingScale(TrainStep):
    """The scale is doubled after every good step."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.scaler = torch.amp.GradScaler(
            self.device.type, growth_interval=1, enabled=self.precision.scales_gradients
        )
