"""A few steps of a training, by which a lever is shown to leave it what it is."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from perfsuite.devices.choice import device_of
from perfsuite.training.arm import Arm, NotShownError

_MOST_VALUES = 10_000
"""Of each parameter that are looked at: those of the beginning are kept on the host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FewSteps:
    """What a few steps have done.

    Attributes:
        losses: one a step.
        moved: how far values of the weights are from where they began; None without a model.
        draws: whether the steps draw random numbers although dropout layers are idle.
    """

    losses: list[float]
    moved: float | None
    draws: bool


def take_few_steps(arm: Arm, steps: int) -> FewSteps:
    """Take steps of a fresh arm without dropout, whose masks depend on shapes and precision.

    Dropout layers are made idle. What draws otherwise, such as a function, goes on, and is told.
    """
    models = models_of(arm)
    for module in (module for model in models for module in model.modules()):
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
    batches, began = arm.take(steps), _values(models)
    before = _random_states(arm.device)
    losses = [float(arm.step(batch)) for batch in batches]
    after = _random_states(arm.device)
    return FewSteps(
        losses=losses,
        moved=float((_values(models) - began).norm()) if models else None,
        draws=not all(map(torch.equal, before, after)),
    )


def models_of(arm: Arm) -> list[nn.Module]:
    """Return the models that an arm shows, if any."""
    try:
        return arm.models
    except NotShownError:
        return []


def _values(models: list[nn.Module]) -> Tensor:
    """Return values of all parameters, evenly spread over each, whatever their memory format."""
    flat = (each.detach().flatten() for model in models for each in model.parameters())
    some = [each[:: 1 + len(each) // _MOST_VALUES].double().cpu() for each in flat]
    return torch.cat([torch.empty(0, dtype=torch.float64), *some])


def _random_states(device: torch.device) -> list[Tensor]:
    own = device_of(device).random_state()
    return [torch.get_rng_state(), *([] if own is None else [own])]
