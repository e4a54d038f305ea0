"""Probes of a step that is captured or compiled: it has to do what it does as it is written."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from perfsuite.devices.precision import Precision
from perfsuite.measuring.compiler import drawing_as_written, lacks_compiler
from perfsuite.measuring.scripted_run import compiles
from perfsuite.probes.probe import Found, MakeArm, anywhere, probe
from perfsuite.training.arm import Arm, NotShownError
from perfsuite.training.batches import fields_of
from perfsuite.training.graphed import PLAIN_STEPS
from perfsuite.training.snapshot import states_of

_REPLAYED = _COMPILED = 6
_LOSSES, _MOVED, _NUMBERS = 1e-2, 0.1, 1e-3
"""Largest differences: of losses; of all tensors of a part, as a share of how far they moved; and
of single numbers. Kernels of a GPU may add in another order each time."""


@probe(
    wanted="a graph whose losses, weights and other state are those of the step as it is written",
    remedy="all that changes from step to step has to be in tensors on the device, and be changed"
    " within the step: its batch, a learning rate that a scheduler changes, the scaler's scale",
    captured=True,
)
def graphed_step(make: MakeArm, precision: Precision, batch: Any) -> Found:
    """A step that is captured as a graph must train as it does where it is not."""
    arm = make(precision)
    if arm.written is None:
        return Found("no graph was asked for", good=True, wanted="the step as it is written")
    many = PLAIN_STEPS + _REPLAYED
    before = states_of(arm.parts)
    found = _trained(arm, batch, many)
    written = _trained(make(precision).as_written(), batch, many)
    if (wrong := _how_they_differ(before, written, found, "in the graph")) is not None:
        return Found(wrong, False)
    return Found(f"{_REPLAYED} steps were those of the step as it is written", True)


@probe(
    wanted="a compiled step whose losses, weights and other state are those of the step as it is"
    f" written, losses within {_LOSSES:.0%}",
    remedy="compile less, or with backend='aot_eager', to see which part computes something else;"
    " a wrong result of torch.compile is a bug to be reported to PyTorch",
)
def compiled_step(make: MakeArm, precision: Precision, batch: Any) -> Found:
    """A step that is compiled must train as it does where it is not."""
    if not anywhere(compiles(make(precision), batch)):
        return Found("nothing is compiled", good=True, wanted="the step as it is written")
    with drawing_as_written():
        written = _trained(make(precision), batch, _COMPILED)
        arm = make(precision)
        before = states_of(arm.parts)
        torch.compiler.reset()  # what other code has compiled may not be what this would
        try:
            with torch.compiler.set_stance("default"):
                found = _trained(arm, batch, _COMPILED)
        except Exception as error:
            if lacks_compiler(error):
                raise NotShownError("the machine has no C++ compiler: install g++") from error
            raise getattr(error, "inner_exception", None) or error from None
    if (wrong := _how_they_differ(before, written, found, "where it is compiled")) is not None:
        return Found(wrong, False)
    return Found(f"{_COMPILED} steps were those of the step as it is written", True)


class _Trained(NamedTuple):
    losses: list[float]
    state: dict[str, Any]  # at its end


def _trained(arm: Arm, batch: Any, many: int) -> _Trained:
    batches = arm.take(many) or [batch] * many
    losses = [arm.step(each) for each in batches]
    return _Trained([float(loss) for loss in losses], states_of(arm.parts))


def _how_they_differ(
    before: dict[str, Any], written: _Trained, found: _Trained, where: str
) -> str | None:
    """Return what differs first: a loss, or a part of the state at the end; None if nothing."""
    for at, (one, other) in enumerate(zip(written.losses, found.losses, strict=True), start=1):
        if not _near(one, other, _LOSSES):
            return f"the loss of step {at} is {one:.6g}, and {other:.6g} {where}"
    for name, state in written.state.items():
        if (wrong := _difference(before[name], state, found.state[name], name)) is not None:
            return f"{wrong} differs after {len(written.losses)} steps"
    return None


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
