"""Planted faults of what a step leaves behind: weights, averages, schedules, gradients."""

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from perfsuite.devices.precision import Precision, backend_flags
from perfsuite.training.step import TrainStep
from sabotage.row import CatalogueRow, probe_row


class RoundedWeights(TrainStep):
    """Weights are rounded to the precision after each step."""

    def __call__(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        loss = super().__call__(batch)
        with torch.no_grad():
            for parameter in self.model.parameters() if self.precision.is_amp else ():
                parameter.copy_(parameter.to(self.precision.autocast_dtype))
        return loss


class AnotherRate(TrainStep):
    """The learning rate is another one in mixed precision."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        for group in self.optimizer.param_groups if self.precision.is_amp else ():
            group["lr"] *= 1.1


class Averaging(TrainStep):
    """Keeps an average of its weights; right."""

    in_half = False

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.average = deepcopy(self.model).requires_grad_(False)
        self.kept = [self.average]

    def __call__(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        loss = super().__call__(batch)
        half = self.precision.autocast_dtype if self.in_half else None
        pairs = zip(self.average.parameters(), self.model.parameters(), strict=True)
        with torch.no_grad():
            for mean, weight in pairs:
                dtype = half or torch.float32
                mean.copy_(mean.to(dtype).lerp(weight.to(dtype), 0.01))
        return loss


class AveragingInHalf(Averaging):
    """Updates the average in the precision."""

    in_half = True


class RoundedMoments(TrainStep):
    """The optimizer's moments are rounded to the precision."""

    def __call__(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        loss = super().__call__(batch)
        for state in self.optimizer.state.values() if self.precision.is_amp else ():
            state["exp_avg_sq"].copy_(state["exp_avg_sq"].to(self.precision.autocast_dtype))
        return loss


class LeftOut(TrainStep):
    """The optimizer has not got the first parameter."""

    frozen = False

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        left: nn.Parameter = self.optimizer.param_groups[0]["params"].pop(0)
        left.requires_grad_(not self.frozen)


class Frozen(LeftOut):
    """Nor does that ask for gradients: it is meant to stay."""

    frozen = True


class LostGradients(TrainStep):
    """In mixed precision one layer's gradients are lost."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        if self.precision.is_amp:
            next(self.model.parameters()).register_hook(torch.zeros_like)


class Accumulating(TrainStep):
    """Two halves of the batch, and one step of the optimizer; right."""

    divisor = 2

    def __call__(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch
        total = torch.zeros((), device=self.device)
        with backend_flags(self.precision):
            self.optimizer.zero_grad(set_to_none=True)
            for some, those in zip(images.chunk(2), labels.chunk(2), strict=True):
                with self._autocast:
                    loss = self.criterion(self.model(some), those) / self.divisor
                self.scaler.scale(loss).backward()
                total += loss.detach() * self.divisor / 2
            self.scaler.step(self.optimizer)
            self.scaler.update()
        return total


class Undivided(Accumulating):
    """Each half counts in full."""

    divisor = 1


class Scheduled(TrainStep):
    """The learning rate follows a schedule; right."""

    times = 1

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.kept = [torch.optim.lr_scheduler.ExponentialLR(self.optimizer, 0.99)]

    def __call__(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        loss = super().__call__(batch)
        for _ in range(self.times):
            self.kept[0].step()
        return loss


class ScheduledTwice(Scheduled):
    """It goes on twice a step."""

    times = 2


class ClippedByValue(TrainStep):
    """Gradients are clipped by value, before they are unscaled."""

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
            nn.utils.clip_grad_value_(self.model.parameters(), 0.5)
            self.scaler.step(self.optimizer)
            self.scaler.update()
        return loss.detach()


class ClippedByValueUnscaled(ClippedByValue):
    """After they are unscaled; right."""

    unscales = True


class Strided(TrainStep):
    """Images are every other number of a larger tensor."""

    copies = False

    def __call__(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch
        strided = torch.stack([images, images], dim=-1)[..., 0]
        return super().__call__((strided.contiguous() if self.copies else strided, labels))


class CopiedOnce(Strided):
    """They are copied; right."""

    copies = True


class WeighedInInference(TrainStep):
    """The weights of its classes come from inference mode."""

    mode: Any = torch.inference_mode

    def __call__(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        if not hasattr(self, "weights"):
            with self.mode():
                self.weights = torch.ones(10, device=self.device)
            plain = self.criterion
            self.criterion = lambda logits, labels: (
                plain(logits, labels) * self.weights[labels].mean()
                + self.weights.mul(logits.mean()).sum()
            )
        return super().__call__(batch)


class WeighedWithoutGradients(WeighedInInference):
    """They come from no_grad; right."""

    mode = torch.no_grad


UPDATES: tuple[CatalogueRow, ...] = (
    probe_row(
        41,
        "weights are rounded to bfloat16 after each step",
        RoundedWeights,
        Precision.bf16,
        {"probe update": "moved otherwise than in fp32, by"},
    ),
    probe_row(
        42,
        "the learning rate is another one in mixed precision",
        AnotherRate,
        Precision.bf16,
        {"probe update": "by 0.1 of its movement"},
    ),
    probe_row(
        43,
        "an average of the weights is kept in bfloat16",
        AveragingInHalf,
        Precision.bf16,
        {"probe averages": "moved otherwise than in fp32, by"},
        twin=Averaging,
    ),
    probe_row(
        44,
        "the optimizer's moments are rounded to bfloat16",
        RoundedMoments,
        Precision.bf16,
        {"probe averages": "exp_avg_sq of"},
    ),
    probe_row(
        45,
        "the optimizer has not got a parameter",
        LeftOut,
        Precision.bf16,
        {"probe trained_parameters": "no optimizer has 0.weight"},
        twin=Frozen,
    ),
    probe_row(
        46,
        "one layer's gradients are lost in mixed precision",
        LostGradients,
        Precision.bf16,
        {"probe trained_parameters": "0.weight is given 0 times fp32's gradient"},
    ),
    probe_row(
        47,
        "micro-batches are not divided by their number",
        Undivided,
        Precision.bf16,
        {"probe accumulation": "the gradients are 2 times those of the loss"},
        twin=Accumulating,
    ),
    probe_row(
        48,
        "the schedule goes on twice a step",
        ScheduledTwice,
        Precision.bf16,
        {"probe schedule": "stepped 8 times in 4 training steps"},
        twin=Scheduled,
    ),
    probe_row(
        49,
        "gradients are clipped by value before they are unscaled",
        ClippedByValue,
        Precision.fp16,
        {"probe gradients": "times fp32's gradients"},
        twin=ClippedByValueUnscaled,
    ),
    probe_row(
        50,
        "the model is given strided images",
        Strided,
        Precision.bf16,
        {"probe memory_format": "of a model is strided"},
        twin=CopiedOnce,
    ),
    probe_row(
        51,
        "a tensor of inference mode is trained with",
        WeighedInInference,
        Precision.bf16,
        {"probe step_count": "raised RuntimeError: Inference tensors cannot be saved for backward"},
        twin=WeighedWithoutGradients,
    ),
)
