"""Planted faults of what training does not show: running statistics, and evaluation mode."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from perfsuite.devices.precision import Precision
from perfsuite.probes.evaluating import evaluation
from perfsuite.probes.outcomes import buffers
from perfsuite.training.step import TrainStep
from sabotage import environments as env
from sabotage.row import CatalogueRow, probe_row


def of_another_pace() -> nn.Module:
    """A layer whose running statistics follow more slowly in mixed precision."""
    model = env.one_convolution()
    model.register_forward_pre_hook(_set_pace)
    return model


def _set_pace(model: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 0.05 if torch.is_autocast_enabled(inputs[0].device.type) else 0.1


def without_momentum() -> nn.Module:
    model = env.one_convolution()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 0.0
    return model


class FastHead(nn.Linear):
    """Has a way of its own for evaluation in half precision."""

    forgets = False

    def forward(self, features: Tensor) -> Tensor:
        if self.training or not torch.is_autocast_enabled(features.device.type):
            return super().forward(features)
        return linear(features, self.weight, None if self.forgets else self.bias)


class ForgetfulHead(FastHead):
    """Which forgets the bias."""

    forgets = True


def headed(kind: type[FastHead]) -> env.MakeModel:
    return lambda: nn.Sequential(nn.Flatten(), nn.Linear(784, 16), nn.ReLU(), kind(16, 10))


class Evaluating(TrainStep):
    """Evaluates after each step; right."""

    goes_back = True

    def __call__(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        loss = super().__call__(batch)
        self.model.eval()
        with torch.no_grad(), self._autocast:
            self.model(batch[0])
        if self.goes_back:
            self.model.train()
        return loss


class StaysInEvaluation(Evaluating):
    """And never goes back to training mode."""

    goes_back = False


def in_the_model(
    number: int, plant: str, because: dict[str, str], healthy: Any, planted: Any
) -> CatalogueRow:
    """Return a row of a probe, whose bug is in the model."""
    probes = [evaluation if "probe evaluation" in because else buffers]
    return CatalogueRow(
        number=number,
        plant=plant,
        because=because,
        healthy=env.probed(TrainStep, Precision.bf16, *probes, model=healthy),
        planted=env.probed(TrainStep, Precision.bf16, *probes, model=planted),
    )


EVALUATIONS: tuple[CatalogueRow, ...] = (
    in_the_model(
        52,
        "running statistics follow more slowly in mixed precision",
        {"probe buffers": "moved otherwise than in fp32, by 0.4"},
        env.one_convolution,
        of_another_pace,
    ),
    in_the_model(
        53,
        "running statistics never move, in any precision",
        {"probe buffers": "the running statistics of 1 never moved"},
        env.one_convolution,
        without_momentum,
    ),
    in_the_model(
        54,
        "a fast path of evaluation forgets a bias",
        {"probe evaluation": "off fp32's by"},
        headed(FastHead),
        headed(ForgetfulHead),
    ),
    probe_row(
        55,
        "an evaluation leaves the model in evaluation mode",
        StaysInEvaluation,
        Precision.bf16,
        {"probe modes": "in training mode in 1 of 4 steps"},
        twin=Evaluating,
    ),
)
