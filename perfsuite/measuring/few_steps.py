"""A few steps of a training, by which a lever is shown to leave it what it is."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from perfsuite.devices.choice import device_of
from perfsuite.judging.gains import losses_alike, weights_alike
from perfsuite.judging.gates import Verdict
from perfsuite.training.arm import PERTURBATION, Arm, NotShownError

TRIALS = 5
"""Of the plain step beside itself, where a lever's steps are too far from it."""
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


def take_perturbed_steps(make: Callable[[], Arm], steps: int, by: float) -> Iterator[FewSteps]:
    """Take steps of fresh arms from perturbed weights, TRIALS times; nothing without a model.

    Each weight is changed by about such a share `by`, or by some units in its last place.
    """
    for trial in range(TRIALS):
        arm = make()
        if not models_of(arm):
            return
        arm.perturb(trial, max(by, PERTURBATION))
        yield take_few_steps(arm, steps)
        del arm  # there may be room for one


def steps_alike(
    name: str,
    found: FewSteps,
    plain: FewSteps,
    margin: float,
    perturbed: Sequence[FewSteps] = (),
) -> list[Verdict]:
    """Judge what a lever `name` makes of the plain step: losses, and how far weights move."""
    others = [each.losses for each in perturbed]
    alike = [losses_alike(f"{name} losses", found.losses, plain.losses, margin, others)]
    if found.moved is not None and plain.moved is not None:
        moved = [each.moved for each in perturbed if each.moved is not None]
        alike.append(weights_alike(f"{name} weights", found.moved, plain.moved, moved))
    return alike


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
