"""Probes of the gradients: by what they are scaled, what the optimizer gets, what is left over."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from perfsuite.devices.precision import Precision
from perfsuite.judging.gates import Verdict
from perfsuite.probes.probe import (
    Batch,
    ProbedStep,
    StepFactory,
    on_backward,
    settled,
    verdict,
    without_dropout,
)


def loss_scale(make_step: StepFactory, precision: Precision, batch: Batch) -> Verdict:
    """The loss must be scaled in float16, by the scaler's scale, and in nothing else."""
    norms = {}
    scale = 1.0
    enabled = False
    for each in (Precision.fp32, precision):
        step = settled(without_dropout(make_step(each)), batch)
        seen: list[Tensor] = []
        # Read before the step: what it does to the scale is for the next one.
        enabled = step.scaler.is_enabled()
        scale = step.scaler.get_scale() if enabled else 1.0
        with on_backward(step.model, seen.append):
            step(*batch)
        norms[each] = norm(seen)
    found = norms[precision] / norms[Precision.fp32] if norms[Precision.fp32] else math.nan
    # Fp32 is compared with itself, so that its ratio alone would not show a scaled loss.
    right = abs(found / scale - 1) < 0.25 and enabled is precision.scales_gradients
    return verdict(
        "loss_scale",
        f"the gradients of the logits are {found:.4g} times fp32's"
        + (", and a GradScaler is enabled" if enabled and not precision.scales_gradients else ""),
        f"{scale:g} times fp32's"
        if enabled is precision.scales_gradients
        else "a scale in fp16 only",
        good=right and (scale > 1.0) is precision.scales_gradients,
        remedy="call scaler.scale(loss).backward() with an enabled GradScaler, in float16 only",
    )


def gradients(make_step: StepFactory, precision: Precision, batch: Batch) -> Verdict:
    """What the optimizer is given must be, unscaled, the gradients that fp32 gives it."""
    reference, found = (
        gradients_at_step(settled(without_dropout(make_step(each)), batch), batch)
        for each in (Precision.fp32, precision)
    )
    if not found or len(found) != len(reference):
        return verdict(
            "gradients",
            "gradients of other parameters" if found else "the optimizer was not called",
            "the gradients that fp32 gives the optimizer",
            good=False,
            remedy="does the scaler skip the step, or is scaler.step(optimizer) missing?",
        )
    scale, size = norm(reference), norm(found)
    product = sum(float((a * b).sum()) for a, b in zip(found, reference, strict=True))
    ratio = size / scale if scale else math.nan
    cosine = product / (size * scale) if size * scale else math.nan
    return verdict(
        "gradients",
        f"the optimizer is given {ratio:.3g} times fp32's gradients, with a cosine of {cosine:.3f}",
        "0.8 to 1.25 times, with a cosine of at least 0.7",
        good=0.8 <= ratio <= 1.25 and cosine >= 0.7,
        remedy="unscale before clipping, and let scaler.step(optimizer) take the step",
    )


def gradients_at_step(step: ProbedStep, batch: Batch) -> list[Tensor]:
    """Take one step; return copies of the gradients that its first optimizer step is given.

    They are float64 and unscaled; none if the optimizer was not called.
    """
    seen: list[Tensor] = []

    def see(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        if not seen:
            # A fused optimizer is handed the scale and divides by it itself.
            scale = getattr(optimizer, "grad_scale", None)
            factor = 1.0 if scale is None else float(scale)
            everything = [p for group in optimizer.param_groups for p in group["params"]]
            seen.extend(p.grad.detach().double() / factor for p in everything if p.grad is not None)

    with step.optimizer.register_step_pre_hook(see):
        step(*batch)
    return seen


def norm(gradients: Iterable[Tensor]) -> float:
    """Return the norm of all these tensors as one vector."""
    return math.hypot(*(float(gradient.double().norm()) for gradient in gradients))


def fresh_gradients(make_step: StepFactory, precision: Precision, batch: Batch) -> Verdict:
    """A step must not start with the gradients of the one before, nor with zeros for them.

    Those that are still there as the backward pass begins are added to the new ones. Those that
    are there in the forward pass only take memory. Of a step that accumulates over several
    forward passes it is the first that counts.
    """
    step = make_step(precision)

    def left() -> str:
        found = [p.grad for p in step.model.parameters() if p.grad is not None]
        if any(bool(gradient.count_nonzero()) for gradient in found):
            return "values"
        return "zeros" if found else ""

    held: list[str] = []
    stale: list[str] = []
    for count in (1, 2):
        with (
            step.model.register_forward_hook(lambda *_: held.append(left())),
            on_backward(step.model, lambda _: stale.append(left())),
        ):
            step(*batch)
        del held[count:], stale[count:]
    found, good = "gradients are freed before the forward pass", False
    remedy = "call optimizer.zero_grad(set_to_none=True) at the start of every step"
    if len(stale) < 2:
        found = "there was no backward pass"
    elif "values" in stale:
        found = "gradients are left from the step before"
    elif any(held):
        how = "held in the forward pass" if "values" in held else "zeroed, not freed"
        found = f"gradients are {how}"
        remedy = (
            "call optimizer.zero_grad(set_to_none=True) before the forward pass: the memory is"
            " free for activations, and no zeros are written"
        )
    else:
        good = True
    return verdict(
        "fresh_gradients", found, "no gradients in the forward pass", good=good, remedy=remedy
    )
