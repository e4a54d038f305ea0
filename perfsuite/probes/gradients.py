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
    Make,
    before_step,
    on_backward,
    on_forward,
    probe,
    settled,
    without_dropout,
)
from perfsuite.training.arm import Arm


@probe(
    wanted="a scale in fp16 only",
    remedy="call scaler.scale(loss).backward() with an enabled GradScaler, in float16 only; and"
    " add the scaler to `state`",
)
def loss_scale(make: Make, precision: Precision, batch: Any) -> Found:
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
    wanted="0.8 to 1.25 times, with a cosine of at least 0.7",
    remedy="unscale before clipping, and let scaler.step(optimizer) take the step",
)
def gradients(make: Make, precision: Precision, batch: Any) -> Found:
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
        f"the optimizer is given {ratio:.3g} times fp32's gradients, with a cosine of {cosine:.3f}",
        good=0.8 <= ratio <= 1.25 and cosine >= 0.7,
    )


def gradients_at_step(arm: Arm, batch: Any) -> list[Tensor]:
    """Take one step; return copies of the gradients that each optimizer's first step is given.

    They are float64 and unscaled; none if no optimizer was called.
    """
    seen: dict[int, list[Tensor]] = {}

    def see(optimizer: torch.optim.Optimizer) -> None:
        if id(optimizer) not in seen:
            # A fused optimizer is handed the scale and divides by it itself.
            factor = handed_scale(optimizer)
            everything = [p for group in optimizer.param_groups for p in group["params"]]
            seen[id(optimizer)] = [
                p.grad.detach().double() / factor for p in everything if p.grad is not None
            ]

    with ExitStack() as hooks:
        for optimizer in arm.optimizers:
            hooks.enter_context(before_step(optimizer, see))
        arm.step(batch)
    return [gradient for each in seen.values() for gradient in each]


def handed_scale(optimizer: torch.optim.Optimizer) -> float:
    """Return the scale that a scaler has handed a fused optimizer, one if there is none."""
    scale = getattr(optimizer, "grad_scale", None)
    return 1.0 if scale is None else float(scale)


def norm(gradients: Iterable[Tensor]) -> float:
    """Return the norm of all these tensors as one vector."""
    return math.hypot(*(float(gradient.double().norm()) for gradient in gradients))


@probe(
    wanted="no gradients in the forward pass",
    remedy="call optimizer.zero_grad(set_to_none=True) at the start of every step",
)
def fresh_gradients(make: Make, precision: Precision, batch: Any) -> Found:
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
    found = [p.grad for p in parameters if p.grad is not None]
    if any(bool(gradient.count_nonzero()) for gradient in found):
        return "values"
    return "zeros" if found else ""
