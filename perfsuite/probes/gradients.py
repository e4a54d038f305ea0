"""Probes of the gradients: by what they are scaled, what the optimizer gets, what is left over."""

import math
from collections.abc import Iterable
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from perfsuite.devices.precision import Precision
from perfsuite.probes.probe import (
    Found,
    MakeArm,
    anywhere,
    before_step,
    handed_scale,
    on_backward,
    on_forward,
    over_ranks,
    probe,
    settled,
    told_by_all,
    without_dropout,
)
from perfsuite.probes.references import led
from perfsuite.training.arm import Arm, NotShownError
from perfsuite.training.parallel import local_of, sharded_weights

_FALL, _MANY_TIMES = 3e-3, 0.2


@probe(
    wanted="a scale in fp16 only",
    remedy="call scaler.scale(loss).backward() with an enabled GradScaler, in float16 only; and"
    " add the scaler to `state`",
)
def loss_scale(make: MakeArm, precision: Precision, batch: Any) -> Found:
    """The loss must be scaled in float16, by the scaler's scale, and in nothing else."""
    norms = {}
    scale = 1.0
    enabled = False
    for each in (Precision.fp32, precision):
        arm = settled(without_dropout(make(each)), batch)
        seen: list[Tensor] = []
        # Read before the step: what it does to the scale is for the next one.
        enabled = arm.scaler.is_enabled()
        scale = arm.scaler.get_scale() if enabled else 1.0
        with on_backward(arm, seen.append):
            arm.step(batch)
        norms[each] = norm(seen)
    found = norms[precision] / norms[Precision.fp32] if norms[Precision.fp32] else math.nan
    # Fp32 is compared with itself, so that its ratio alone would not show a scaled loss.
    wanted = enabled is precision.scales_gradients
    right = abs(found / scale - 1) < 0.25 and wanted
    unwanted = enabled and not precision.scales_gradients
    return Found(
        f"the gradients of the logits are {found:.4g} times fp32's"
        + ", and a GradScaler is enabled" * unwanted,
        good=right and (scale > 1.0) is precision.scales_gradients,
        wanted=f"{scale:g} times fp32's" * wanted,
    )


@probe(
    wanted="0.8 to 1.25 times fp32's, in about the same direction (cosine at least 0.7)",
    remedy="unscale before clipping, and let scaler.step(optimizer) take the step",
)
def gradients(make: MakeArm, precision: Precision, batch: Any) -> Found:
    """What the optimizer is given must be, unscaled, the gradients that fp32 gives it."""
    reference, found = (
        gradients_at_step(settled(without_dropout(make(each)), batch), batch)
        for each in (Precision.fp32, precision)
    )
    if not found or len(found) != len(reference):
        return Found(
            "gradients of other parameters" if found else "the optimizer was not called",
            good=False,
            wanted="the gradients that fp32 gives the optimizer",
            remedy="does the scaler skip the step, or is scaler.step(optimizer) missing?",
        )
    scale, size = norm(reference), norm(found)
    product = sum(float((a * b).sum()) for a, b in zip(found, reference, strict=True))
    ratio = size / scale if scale else math.nan
    cosine = product / (size * scale) if size * scale else math.nan
    return Found(
        f"the optimizer is given {ratio:.3g} times fp32's gradients (cosine {cosine:.3f})",
        good=0.8 <= ratio <= 1.25 and cosine >= 0.7,
    )


def gradients_at_step(arm: Arm, batch: Any) -> list[Tensor]:
    """Take one step; return copies of the gradients that each optimizer's first step is given.

    They are float64 and unscaled; none if no optimizer was called.
    """
    return [gradient for each in given_at_step(arm, batch) for gradient in each.values()]


def given_at_step(arm: Arm, batch: Any) -> list[dict[int, Tensor]]:
    """Return the same of each optimizer that was called, by the parameter's id."""
    seen: dict[int, dict[int, Tensor]] = {}

    def see(optimizer: torch.optim.Optimizer) -> None:
        if id(optimizer) not in seen:
            # A fused optimizer is handed the scale and divides by it itself.
            factor = handed_scale(optimizer)
            everything = [p for group in optimizer.param_groups for p in group["params"]]
            seen[id(optimizer)] = {
                id(p): p.grad.detach().double() / factor for p in everything if p.grad is not None
            }

    with ExitStack() as hooks:
        for optimizer in arm.optimizers:
            hooks.enter_context(before_step(optimizer, see))
        arm.step(batch)
    return [*seen.values()]


def norm(gradients: Iterable[Tensor]) -> float:
    """Return the norm of all these tensors as one vector."""
    return math.hypot(*(float(gradient.double().norm()) for gradient in gradients))


@probe(
    wanted="the gradients of the loss that the step returns",
    remedy="divide each micro-batch's loss by their number, and return the sum of what was divided",
)
def accumulation(make: MakeArm, precision: Precision, batch: Any) -> Found:
    """Gradients of many micro-batches must be those of the step's loss, and not as many times them.

    In fp32, which decides for all: the weights go a short way down the gradient, by which the loss
    would fall by _FALL if it were linear. It falls by less, in proportion, where the gradient is
    too long, and by more where it was clipped. Only a gradient that is as many times too long as
    the models are called in a step is blamed.
    """
    many = max(told_by_all(led(make, precision, batch).calls))
    if many < 2:
        return Found("one backward pass a step", good=True)
    arm = without_dropout(make(Precision.fp32))
    if len(arm.optimizers) > 1:  # as of adversaries
        raise NotShownError(f"{len(arm.optimizers)} optimizers: of what is the loss the sum?")
    held: list[tuple[str, Tensor]] = []
    names = {id(parameter): name for name, parameter in arm.named_parameters().items()}

    def see(optimizer: torch.optim.Optimizer) -> None:
        held.extend(
            (names[id(p)], p.grad / handed_scale(optimizer))
            for group in optimizer.param_groups
            for p in group["params"]
            if p.grad is not None and id(p) in names
        )

    with before_step(arm.optimizers[0], see):
        loss = over_ranks(float(arm.step(batch)))
    length = norm(gradient for _, gradient in held)
    if anywhere(not (length > 0 and math.isfinite(loss))):
        raise NotShownError("fp32 gives its optimizer no gradient, or no finite one")
    rate = _FALL * abs(loss) / length**2
    moved = without_dropout(make(Precision.fp32))
    parameters = moved.named_parameters()
    with torch.no_grad():
        for name, gradient in held:
            parameters[name].sub_(rate * gradient)
    fall = (loss - over_ranks(float(moved.step(batch)))) / (_FALL * abs(loss))
    if abs(fall * many - 1) < _MANY_TIMES:
        return Found(f"the gradients are {many} times those of the loss", good=False)
    return Found(f"the loss falls {fall:.2f} times as far as its gradients say", good=True)


@probe(
    wanted="no gradients in the forward pass",
    remedy="call optimizer.zero_grad(set_to_none=True) at the start of every step",
)
def fresh_gradients(make: MakeArm, precision: Precision, batch: Any) -> Found:
    """A step must not start with the gradients of the one before, nor with zeros for them.

    Those that are still there as a parameter is given its first gradient are added to it. Those
    that are there in the first forward pass only take memory; where several optimizers take
    turns, each may clear its own later.
    """
    arm = make(precision)
    arm.step(batch)
    held: list[str] = []
    stale: dict[int, str] = {}

    def look(parameter: nn.Parameter, _: Tensor) -> None:
        stale.setdefault(id(parameter), _left([parameter]))

    with ExitStack() as hooks, on_forward(arm, lambda *_: held.append(_left(arm.parameters()))):
        for parameter in (p for p in arm.parameters() if p.requires_grad):
            hooks.callback(parameter.register_hook(partial(look, parameter)).remove)
        arm.step(batch)
    if not stale and held and sharded_weights(arm.models):
        if "values" in held[:1]:
            raise NotShownError(
                "gradients of sharded weights come past autograd: free them before the forward"
                " pass, or nothing tells whether new ones are added to them"
            )
        stale[0] = held[0]
    if not stale:
        return Found("there was no backward pass", good=False)
    if "values" in stale.values():
        return Found("gradients are left from the step before", good=False)
    take_turns = sum(isinstance(each, torch.optim.Optimizer) for each in arm.parts.values()) > 1
    wasted = {*stale.values()} if take_turns else {*held[:1]}
    if any(wasted):
        how = "held in the forward pass" if "values" in wasted else "zeroed, not freed"
        remedy = (
            "call optimizer.zero_grad(set_to_none=True) before the forward pass: the memory is"
            " free for activations, and no zeros are written"
        )
        return Found(f"gradients are {how}", good=False, remedy=remedy)
    return Found("gradients are freed before the forward pass", good=True)


def _left(parameters: Iterable[nn.Parameter]) -> str:
    found = [local_of(p.grad) for p in parameters if p.grad is not None]
    if any(bool(gradient.count_nonzero()) for gradient in found):
        return "values"
    return "zeros" if found else ""
