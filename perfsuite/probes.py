"""Probes: is mixed precision really happening, and is it applied rightly?

With Adam a comparison of losses is blind to most faults of mixed precision, because Adam does
not care by what factor its gradients are wrong. So each probe looks at the structure of a step.
It builds fresh steps with `make_step(precision)`, which has to start from the same weights each
time, takes a step or two on one batch, and returns a verdict with one line that says what is
wrong. Any step will do that has what `ProbedStep` lists.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from perfsuite.convergence import applied_steps
from perfsuite.gates import Outcome, Verdict
from perfsuite.hostreads import HostReads
from perfsuite.precision import Precision, read_flags

__all__ = ["PROBES", "Batch", "Probe", "ProbedStep", "StepFactory", "judge"]

Batch = tuple[Tensor, Tensor]
"""Images and labels, on the device."""


class ProbedStep(Protocol):
    """A training step that can be looked into."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Take one step and return its loss."""


StepFactory = Callable[[Precision], ProbedStep]
Probe = Callable[[StepFactory, Precision, Batch], Verdict]

_COMPUTES = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
STEPS = 3


def _verdict(probe: str, found: str, wanted: str, *, good: bool, remedy: str = "") -> Verdict:
    return Verdict(
        gate=f"probe {probe}",
        outcome=Outcome.PASS if good else Outcome.FAIL,
        figure=found,
        threshold=wanted,
        reason="" if good else remedy,
    )


@contextmanager
def _on_forward(modules: list[nn.Module], see: Callable[..., Any]) -> Iterator[None]:
    handles = [module.register_forward_hook(see) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def layer_dtypes(make_step: StepFactory, precision: Precision, batch: Batch) -> Verdict:
    """Every convolution and product must compute in the precision, on float32 parameters."""
    step = make_step(precision)
    layers: dict[nn.Module, str] = {
        module: name for name, module in step.model.named_modules() if isinstance(module, _COMPUTES)
    }
    expected = precision.autocast_dtype or torch.float32
    wrong: list[str] = []

    def see(module: nn.Module, _: Any, output: Tensor) -> None:
        if output.dtype is not expected:
            wrong.append(f"{layers[module]} computed in {_name(output.dtype)}")

    with _on_forward(list(layers), see):
        step(*batch)
    wrong += [
        f"{name} is {_name(parameter.dtype)}"
        for name, parameter in step.model.named_parameters()
        if parameter.dtype is not torch.float32
    ]
    return _verdict(
        "layer_dtypes",
        wrong[0] + (f" and {len(wrong) - 1} more" if wrong[1:] else "") if wrong else "all right",
        f"layers in {_name(expected)}, parameters in float32",
        good=bool(layers) and not wrong,
        remedy="is the forward pass inside autocast, and the model not cast itself?",
    )


def loss_dtype(make_step: StepFactory, precision: Precision, batch: Batch) -> Verdict:
    """The loss must be float32: in float16 its scaled value overflows."""
    dtype = make_step(precision)(*batch).dtype
    remedy = "compute the loss inside autocast, or cast the logits to float32"
    good = dtype is torch.float32
    return _verdict("loss_dtype", f"loss in {_name(dtype)}", "in float32", good=good, remedy=remedy)


def arithmetic(make_step: StepFactory, precision: Precision, batch: Batch) -> Verdict:
    """Float32 convolutions and products must be IEEE, or TF32 where that was asked for."""
    step = make_step(precision)
    seen: set[str] = set()

    def see(*_: Any) -> None:
        flags = read_flags()
        seen.update(str(value) for name, value in flags.items() if name.endswith("precision"))

    with _on_forward([step.model], see):
        step(*batch)
    wanted = "tf32" if precision is Precision.tf32 else "ieee"
    return _verdict(
        "arithmetic",
        f"float32 as {', '.join(sorted(seen))}",
        f"as {wanted}",
        good=seen == {wanted},
        remedy="set the backend flags for convolutions and products, with backend_flags",
    )


def autocast_in_backward(make_step: StepFactory, precision: Precision, batch: Batch) -> Verdict:
    """Autocast must be off in the backward pass, which runs in the forward pass's dtypes."""
    step = make_step(precision)
    device = batch[0].device.type
    seen: list[bool] = []

    def see(_: Any, __: Any, output: Tensor) -> None:
        output.register_hook(lambda _: seen.append(torch.is_autocast_enabled(device)))

    with _on_forward([step.model], see):
        step(*batch)
    return _verdict(
        "autocast_in_backward",
        "no backward pass" if not seen else "on" if any(seen) else "off",
        "off in the backward pass",
        good=bool(seen) and not any(seen),
        remedy="leave the autocast context before loss.backward()",
    )


def loss_scale(make_step: StepFactory, precision: Precision, batch: Batch) -> Verdict:
    """The loss must be scaled in float16, by the scaler's scale, and in nothing else."""
    norms = {}
    scale = 1.0
    for each in (Precision.fp32, precision):
        step = make_step(each)
        seen: list[Tensor] = []

        def see(_: Any, __: Any, output: Tensor, seen: list[Tensor] = seen) -> None:
            output.register_hook(seen.append)

        with _on_forward([step.model], see):
            step(*batch)
        norms[each] = math.hypot(*(float(gradient.float().norm()) for gradient in seen))
        if precision.scales_gradients and step.scaler.is_enabled():
            scale = step.scaler.get_scale()
    found = norms[precision] / norms[Precision.fp32] if norms[Precision.fp32] else math.nan
    # After one step the scale is what it was, or a half of it if that step overflowed.
    right = any(abs(found / factor - 1) < 0.25 for factor in (scale, 2 * scale))
    scaled = scale > 1.0 if precision.scales_gradients else True
    return _verdict(
        "loss_scale",
        f"gradients of the logits {found:.4g} times fp32's",
        f"{scale:g} times" if scale > 1 or not precision.scales_gradients else "scaled up",
        good=right and scaled,
        remedy="call scaler.scale(loss).backward() with an enabled GradScaler, in float16 only",
    )


def gradients(make_step: StepFactory, precision: Precision, batch: Batch) -> Verdict:
    """What the optimizer is given must be, unscaled, the gradients that fp32 gives it."""
    reference = _gradients_at_step(make_step(Precision.fp32), batch)
    found = _gradients_at_step(make_step(precision), batch)
    if not found or len(found) != len(reference):
        return _verdict(
            "gradients",
            "the optimizer was not called" if not found else "for other parameters",
            "those of fp32",
            good=False,
            remedy="does the scaler skip the step, or is scaler.step(optimizer) missing?",
        )
    scale = math.hypot(*(float(gradient.norm()) for gradient in reference))
    size = math.hypot(*(float(gradient.norm()) for gradient in found))
    product = sum(float((a * b).sum()) for a, b in zip(found, reference, strict=True))
    ratio = size / scale if scale else math.nan
    cosine = product / (size * scale) if size * scale else math.nan
    return _verdict(
        "gradients",
        f"{ratio:.3g} times fp32's, cosine {cosine:.3f}",
        "0.8 to 1.25 times, cosine at least 0.7",
        good=0.8 <= ratio <= 1.25 and cosine >= 0.7,
        remedy="unscale before clipping, and let scaler.step(optimizer) take the step",
    )


def _gradients_at_step(step: ProbedStep, batch: Batch) -> list[Tensor]:
    """Return copies of the gradients that the first optimizer step of a call is given."""
    seen: list[Tensor] = []

    def see(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        if not seen:
            # A fused optimizer is handed the scale and divides by it itself.
            scale = getattr(optimizer, "grad_scale", None)
            factor = 1.0 if scale is None else float(scale)
            everything = [p for group in optimizer.param_groups for p in group["params"]]
            seen.extend(p.grad.detach().double() / factor for p in everything if p.grad is not None)

    handle = step.optimizer.register_step_pre_hook(see)
    try:
        step(*batch)
    finally:
        handle.remove()
    return seen


def fresh_gradients(make_step: StepFactory, precision: Precision, batch: Batch) -> Verdict:
    """A step must not start with the gradients of the one before."""
    step = make_step(precision)
    stale: list[bool] = []

    def see(*_: Any) -> None:
        held = (p.grad for p in step.model.parameters() if p.grad is not None)
        stale.append(any(bool(gradient.count_nonzero()) for gradient in held))

    with _on_forward([step.model], see):
        for _ in range(2):
            step(*batch)
    found = "gradients left from the step before" if any(stale) else "none left over"
    wanted, good = "cleared before the forward pass", bool(stale) and not any(stale)
    remedy = "call optimizer.zero_grad(set_to_none=True) in every step"
    return _verdict("fresh_gradients", found, wanted, good=good, remedy=remedy)


def step_count(make_step: StepFactory, precision: Precision, batch: Batch) -> Verdict:
    """A call must be one step of the optimizer, neither none nor two."""
    step = make_step(precision)
    for _ in range(STEPS):
        step(*batch)
    count = applied_steps(step.optimizer)
    remedy = "is the optimizer stepped twice, or is every step skipped?"
    found = f"{'unknown' if count is None else count} in {STEPS} calls"
    return _verdict("step_count", found, "one step a call", good=count == STEPS, remedy=remedy)


def host_waits(make_step: StepFactory, precision: Precision, batch: Batch) -> Verdict:
    """A step must not fetch a value to the host, which makes it wait for the device.

    Seen on any device; on CUDA other ways of waiting are caught too.
    """
    step = make_step(precision)
    step(*batch)  # the first may set up what the others use
    on_cuda = batch[0].device.type == "cuda"
    before = torch.cuda.get_sync_debug_mode() if on_cuda else 0
    try:
        if on_cuda:
            torch.cuda.set_sync_debug_mode("error")
        with HostReads() as reads:  # type: ignore[no-untyped-call]  # torch's __init__
            step(*batch)
        found = f"{reads.count} values fetched"
        good = reads.count == 0
    except RuntimeError as error:
        found, good = str(error).splitlines()[0], False
    finally:
        if on_cuda:
            torch.cuda.set_sync_debug_mode(before)
    return _verdict(
        "host_waits",
        found,
        "none fetched in a step",
        good=good,
        remedy="keep losses on the device, and use a fused optimizer under a GradScaler",
    )


PROBES: tuple[Probe, ...] = (
    layer_dtypes,
    loss_dtype,
    arithmetic,
    autocast_in_backward,
    loss_scale,
    gradients,
    fresh_gradients,
    step_count,
    host_waits,
)


def judge(verdicts: Sequence[Verdict]) -> tuple[Verdict, ...]:
    """Return the verdicts that are red, or a single one that says that all probes passed."""
    red = tuple(each for each in verdicts if each.outcome is not Outcome.PASS)
    summary = f"{len(verdicts)} probes passed"
    return red or (_verdict("all", summary, "all of them", good=bool(verdicts)),)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
