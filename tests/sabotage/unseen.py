"""Planted faults that no probe sees, and why: each is held to that by a test."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from perfsuite.devices.precision import Precision, backend_flags
from perfsuite.training.step import TrainStep
from sabotage import environments as env
from sabotage.updates import Scheduled


class DecaysScaled(TrainStep):
    """Adds weight decay to gradients that are still scaled, which all but takes it away."""

    def __call__(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch
        with backend_flags(self.precision):
            self.optimizer.zero_grad(set_to_none=True)
            with self._autocast:
                loss = self.criterion(self.model(images), labels)
            self.scaler.scale(loss).backward()
            for parameter in self.model.parameters():
                assert parameter.grad is not None
                parameter.grad.add_(parameter.detach(), alpha=1e-3)
            self.scaler.step(self.optimizer)
            self.scaler.update()
        return loss.detach()


class Cut(nn.Module):
    """Hands on what it is given without its graph."""

    def forward(self, features: Tensor) -> Tensor:
        return features.detach()


def cut() -> nn.Module:
    layers = list(env.one_convolution().children())
    return nn.Sequential(*layers[:2], Cut(), *layers[2:])


class RoundedSeldom(Scheduled):
    """Rounds the weights in every thirtieth step, as where one saves them."""

    def __call__(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        loss = super().__call__(batch)
        if self.kept[0].last_epoch % 30 == 0:
            with torch.no_grad():
                for parameter in self.model.parameters():
                    parameter.copy_(parameter.bfloat16())
        return loss


@dataclass(frozen=True, slots=True, kw_only=True)
class Unseen:
    """A fault that no probe sees."""

    plant: str
    why: str
    precision: Precision = Precision.bf16
    kind: type[TrainStep] = TrainStep
    model: env.MakeModel = env.one_convolution


UNSEEN = (
    Unseen(
        plant="weight decay is added to scaled gradients",
        why="it is less than what half precision changes in gradients; an optimizer's own decay is"
        " seen by `update`",
        kind=DecaysScaled,
        precision=Precision.fp16,
    ),
    Unseen(
        plant="a block is cut from the graph, in every precision",
        why="no precision differs, and parameters that are given no gradient may be meant so, as"
        " those of an output that nobody uses",
        model=cut,
    ),
    Unseen(
        plant="weights are rounded in every thirtieth step",
        why="probes look at four steps, or at twenty for the canary",
        kind=RoundedSeldom,
    ),
)
