"""The probe of a step that is captured as a graph: it has to do what the step does."""

import math
from typing import Any

import torch
from torch import Tensor

from perfsuite.devices.precision import Precision
from perfsuite.probes.probe import Found, Make, probe
from perfsuite.training.arm import Arm
from perfsuite.training.batches import fields_of
from perfsuite.training.graphed import PLAIN_STEPS
from perfsuite.training.snapshot import states_of

_REPLAYED = 6
_LOSSES, _MOVED, _NUMBERS = 1e-2, 0.1, 1e-3
"""Largest differences: of losses; of all tensors of a part, as a share of how far they moved; and
of single numbers. Kernels of a GPU may add in another order each time."""


@probe(
    wanted="a graph whose losses, weights and other state are those of the step as it is written",
    remedy="all that changes from step to step has to be in tensors on the device, and be changed"
    " within the step: its batch, a learning rate that a scheduler changes, the scaler's scale",
    captured=True,
)
def graphed_step(make: Make, precision: Precision, batch: Any) -> Found:
    """A step that is captured as a graph must train as it does where it is not."""
    arm = make(precision)
    if arm.written is None:
        return Found("no graph was asked for", good=True, wanted="the step as it is written")
    many = PLAIN_STEPS + _REPLAYED
    before = states_of(arm.parts)
    found, state = _trained(arm, batch, many)
    losses, written = _trained(make(precision).as_written(), batch, many)
    for at, (one, other) in enumerate(zip(losses, found, strict=True), start=1):
        if not _near(one, other, _LOSSES):
            return Found(f"the loss of step {at} is {one:.6g}, and {other:.6g} in the graph", False)
    for name in written:
        if (wrong := _difference(before[name], written[name], state[name], name)) is not None:
            return Found(f"{wrong} differs after {many} steps", False)
    return Found(f"{_REPLAYED} steps were those of the step as it is written", True)


def _trained(arm: Arm, batch: Any, many: int) -> tuple[list[float], dict[str, Any]]:
    batches = arm.take(many) or [batch] * many
    losses = [arm.step(each) for each in batches]
    return [float(loss) for loss in losses], states_of(arm.parts)


def _near(one: float, other: float, tolerance: float) -> bool:
    if math.isnan(one) or math.isnan(other):
        return math.isnan(one) and math.isnan(other)
    return math.isclose(one, other, rel_tol=tolerance, abs_tol=tolerance * 1e-3)


def _difference(before: Any, written: Any, found: Any, name: str) -> str | None:
    """Return what of a part's state differs: one of its numbers, or its tensors together."""
    moved = apart = 0.0
    began = dict(_leaves(before, name))
    for (way, one), (_, other) in zip(_leaves(written, name), _leaves(found, name), strict=True):
        if not isinstance(one, Tensor):
            numbers = isinstance(one, float) and isinstance(other, float)
            if one != other and not (numbers and _near(one, other, _NUMBERS)):
                return way
        elif one.numel() == 1:
            if not _near(float(one), float(other), _NUMBERS if one.is_floating_point() else 0.0):
                return way
        elif one.is_floating_point():
            start = began.get(way)
            at_first = start if isinstance(start, Tensor) else torch.zeros_like(one)
            moved += float((one - at_first).double().norm()) ** 2
            apart += float((one - other).double().norm()) ** 2
        elif not torch.equal(one, other):
            return way
    # Together: where a gradient is rounding alone, so is what Adam makes of it.
    return None if math.sqrt(apart) <= _MOVED * math.sqrt(moved) else name


def _leaves(state: Any, name: str) -> list[tuple[str, Any]]:
    fields = fields_of(state)
    if fields is None:
        return [(name, state)]
    return [leaf for way, each in fields.items() for leaf in _leaves(each, name + way)]
