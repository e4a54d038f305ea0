"""What several probes look at, and is taken once: a precision that is led along fp32's way.

Two trainings drift apart by rounding alone, which Adam makes large. So the precision is given, for
each step of its optimizers, the gradients that fp32 gives its own. Then its weights are fp32's to
the last digit, and what differs does so for another reason than its gradients: what becomes of an
update, what is kept beside the weights, and what the same weights make of a batch.
"""

import math
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import wraps
from inspect import ismethod
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from perfsuite.devices.precision import Precision
from perfsuite.probes.probe import MakeArm, settled, without_dropout
from perfsuite.probes.watching import Calls, WatchedArm, norm_of, parameters_of, sampled
from perfsuite.training.arm import Arm
from perfsuite.training.batches import named_tensors
from perfsuite.training.snapshot import random_state, set_random_state

T = TypeVar("T")
STEPS = 4
_ROOM = 4.0  # below the scale at which gradients just fit: no step on the way may overflow


class Drift(NamedTuple):
    """How far a tensor was moved, and how far from where fp32 moved it: norms."""

    size: float  # of fp32's, at the end
    moved: float  # fp32's, since the beginning
    apart: float


@dataclass(kw_only=True)
class Led:
    """What STEPS steps on one batch did in a precision, that were fp32's as far as gradients go.

    Attributes:
        weights: of parameters that an optimizer has.
        averages: of what is kept of weights and gradients: parameters that no optimizer has, the
            optimizers' own tensors, and those of any other part of the state.
        buffers: of the models.
        gradients: root mean squares of fp32's first gradients and of the precision's, by parameter.
        homeless: parameters that were given gradients, and that no optimizer has.
        still: layers called in training mode whose running statistics stayed as they were.
        modes: calls by module, and by which of its calls in a step.
        calls: of models in a step, that gradients came back to.
        epochs: by how much each schedule of learning rates went on.
        trained, evaluated: how far the models' outputs are from fp32's, as a share of them, as the
            step called them and in evaluation mode; what they raised instead; NaN where fp32's
            raise too, or there are none.
    """

    weights: dict[str, Drift]
    averages: dict[str, Drift]
    buffers: dict[str, Drift]
    gradients: dict[str, tuple[float, float]]
    homeless: list[str]
    still: list[str]
    modes: dict[str, Calls]
    calls: int
    epochs: dict[str, int]
    trained: float | str
    evaluated: float | str


def shared(take: Callable[[MakeArm, Precision, Any], T]) -> Callable[[MakeArm, Precision, Any], T]:
    """Let probes that ask for the same thing in turn share it; it is kept until they ask anew."""
    kept: list[tuple[Callable[[], Any], Precision, list[weakref.ref[Tensor]], T]] = []

    @wraps(take)
    def taken(make: MakeArm, precision: Precision, batch: Any) -> T:
        given = getattr(make, "__wrapped__", make)  # a probe wraps it anew
        tensors = [tensor for _, tensor in named_tensors(batch)]
        for maker, asked, seen, result in kept:
            alike = maker() == given and asked is precision and len(seen) == len(tensors)
            if alike and all(one() is other for one, other in zip(seen, tensors, strict=True)):
                return result
        kept.clear()
        result = take(make, precision, batch)
        held = weakref.WeakMethod(given) if ismethod(given) else weakref.ref(given)
        kept.append((held, precision, [weakref.ref(tensor) for tensor in tensors], result))
        return result

    return taken


@shared
def led(make: MakeArm, precision: Precision, batch: Any) -> Led:
    """Lead a precision along fp32's way, and return what it did."""
    scale = _roomy_scale(make, precision, batch)
    leader, follower = (WatchedArm(without_dropout(make(p))) for p in (Precision.fp32, precision))
    if scale is not None:
        follower.arm.scaler.load_state_dict(scale)
    begun = {name: sampled(tensor) for name, tensor in _kept(leader.arm)}
    with leader, follower:
        for _ in range(STEPS):
            numbers = random_state(leader.arm.device)
            leader.step(batch, leads=follower)
            set_random_state(leader.arm.device, numbers)
            follower.step(batch)
    drifts: dict[str, dict[str, Drift]] = defaultdict(dict)
    theirs = dict(_kept(follower.arm))
    for place, tensor in _kept(leader.arm):
        end = sampled(tensor)
        start = begun.get(place, torch.zeros_like(end))
        other = sampled(theirs[place]) if place in theirs else start
        kind, _, name = place.partition(" ")
        drifts[kind][name] = Drift(norm_of(end), norm_of(end - start), norm_of(other - end))
    return Led(
        weights=drifts["weights"],
        averages=drifts["averages"],
        buffers=drifts["buffers"],
        gradients={
            name: (each, follower.gradients.get(name, 0.0))
            for name, each in leader.gradients.items()
        },
        homeless=sorted(leader.homeless),
        still=follower.still(),
        modes=follower.modes,
        calls=leader.calls,
        epochs=follower.epochs(),
        trained=_compared(leader.outputs, follower.outputs),
        evaluated=_compared(leader.evaluated, follower.evaluated),
    )


def _roomy_scale(make: MakeArm, precision: Precision, batch: Any) -> dict[str, Any] | None:
    scaler = settled(make(precision), batch).scaler if precision.scales_gradients else None
    if scaler is None or not scaler.is_enabled():
        return None
    state: dict[str, Any] = scaler.state_dict()
    return state | {"scale": max(state["scale"] / _ROOM, 1.0)}


def _kept(arm: Arm) -> Iterator[tuple[str, Tensor]]:
    """Yield all that a training keeps in tensors, by kind and name."""
    parameters = arm.named_parameters()
    names = {id(parameter): name for name, parameter in parameters.items()}
    trained = {id(parameter) for each in arm.optimizers for parameter in parameters_of(each)}
    for name, parameter in parameters.items():
        yield f"{'weights' if id(parameter) in trained else 'averages'} {name}", parameter
    for index, model in enumerate(arm.models):
        prefix = f"{index}." if len(arm.models) > 1 else ""
        for name, buffer in model.named_buffers():
            yield f"buffers {prefix}{name}", buffer
    for part, optimizer in enumerate(arm.optimizers):
        for index, parameter in enumerate(parameters_of(optimizer)):
            for key, value in optimizer.state.get(parameter, {}).items():
                if isinstance(value, Tensor):
                    owner = names.get(id(parameter), f"parameter {index} of optimizer {part}")
                    yield f"averages {key} of {owner}", value
    told = (nn.Module, torch.optim.Optimizer, torch.amp.GradScaler)
    for way, part in arm.parts.items():
        if not isinstance(part, told):
            for name, tensor in named_tensors(part.state_dict(), way):
                yield f"averages {name}", tensor


def _compared(wanted: Callable[[], list[Tensor]], found: Callable[[], list[Tensor]]) -> float | str:
    """Return how far outputs are from others, as a share of them; what was raised instead.

    NaN where there is nothing to compare, as where they are of other shapes.
    """
    try:
        reference = wanted()
    except Exception:
        return math.nan  # a model that cannot be called so says nothing of the precision
    try:
        others = found()
    except (ValueError, RuntimeError) as error:
        return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    if [each.shape for each in reference] != [each.shape for each in others]:
        return math.nan  # their sizes may depend on values, as how many boxes are found
    apart = math.hypot(*(norm_of(b - a) for a, b in zip(reference, others, strict=True)))
    size = math.hypot(*map(norm_of, reference))
    return apart / size if size else math.nan
