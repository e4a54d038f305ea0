"""Probes of what a step computes in: dtypes, float32's arithmetic, and memory format."""

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from perfsuite.devices.precision import Precision, read_flags
from perfsuite.judging.gates import Verdict
from perfsuite.probes.probe import (
    Batch,
    ProbedStep,
    StepFactory,
    and_more,
    dtype_name,
    on_backward,
    verdict,
)

T = TypeVar("T")
# Convolutions of any dimension, transposed ones too.
_COMPUTES = (nn.modules.conv._ConvNd, nn.Linear)


def layer_calls(
    step: ProbedStep, batch: Batch, layers: dict[str, nn.Module], look: Callable[..., T]
) -> list[tuple[str, T]]:
    """Take one step; return a layer's name and `look(inputs, output)` for each call of a layer."""
    calls: list[tuple[str, T]] = []

    def see(name: str, _: nn.Module, *seen: Any) -> None:
        calls.append((name, look(*seen)))

    with ExitStack() as hooks:
        for name, layer in layers.items():
            hooks.enter_context(layer.register_forward_hook(partial(see, name)))
        step(*batch)
    return calls


def layer_dtypes(make_step: StepFactory, precision: Precision, batch: Batch) -> Verdict:
    """Every convolution and linear layer must compute in the precision, on float32 parameters.

    Products that are functions and no layers are not seen.
    """
    step = make_step(precision)
    layers: dict[str, nn.Module] = {
        name: layer for name, layer in step.model.named_modules() if isinstance(layer, _COMPUTES)
    }
    expected = precision.autocast_dtype or torch.float32
    calls = layer_calls(step, batch, layers, lambda _, output: output.dtype)
    wrong = [
        f"{name} computed in {dtype_name(dtype)}" for name, dtype in calls if dtype is not expected
    ] + [
        f"{name} is {dtype_name(parameter.dtype)}"
        for name, parameter in step.model.named_parameters()
        if parameter.dtype is not torch.float32
    ]
    found = f"{len(calls)} layers computed in {dtype_name(expected)}"
    good: bool | None = True
    remedy = "is the forward pass inside autocast, and the model not cast itself?"
    if wrong:
        found, good = and_more(wrong), False
    elif not calls:
        found, good = "no convolution or linear layer was called", None
        remedy = "does the step train the model that it shows as its attribute `model`?"
    wanted = f"layers that compute in {dtype_name(expected)}, on float32 parameters"
    return verdict("layer_dtypes", found, wanted, good=good, remedy=remedy)


def loss_dtype(make_step: StepFactory, precision: Precision, batch: Batch) -> Verdict:
    """The loss must be float32, in float16 its scaled value overflows.

    What the scaler is given counts too: a loss that is cast once it is too late is no better.
    """
    step = make_step(precision)
    seen: list[torch.dtype] = []
    scale = step.scaler.scale

    def see(outputs: Any) -> Any:
        if isinstance(outputs, Tensor):
            seen.append(outputs.dtype)
        return scale(outputs)

    # On the instance, which is a fresh step's own.
    step.scaler.scale = see  # type: ignore[method-assign]  # put back below
    try:
        seen.append(step(*batch).dtype)
    finally:
        del step.scaler.scale
    wrong = [dtype for dtype in seen if dtype is not torch.float32]
    return verdict(
        "loss_dtype",
        f"the loss is {dtype_name((wrong or seen)[0])}",
        "a float32 loss",
        good=not wrong,
        remedy="compute the loss inside autocast, or cast the logits to float32",
    )


def arithmetic(make_step: StepFactory, precision: Precision, batch: Batch) -> Verdict:
    """Float32 convolutions and products must be IEEE, or TF32 where that was asked for.

    In both passes: the flags are read after the forward pass and as the backward pass begins.
    """
    step = make_step(precision)
    seen: set[str] = set()

    def read(*_: Any) -> None:
        flags = read_flags()
        seen.update(str(value) for name, value in flags.items() if name.endswith("precision"))

    with step.model.register_forward_hook(read), on_backward(step.model, read):
        step(*batch)
    wanted = "tf32" if precision is Precision.tf32 else "ieee"
    return verdict(
        "arithmetic",
        f"float32 is computed as {', '.join(sorted(seen))}" if seen else "the model was not called",
        f"float32 computed as {wanted}",
        good=seen == {wanted},
        remedy="set the backend flags for convolutions and products, with backend_flags",
    )


def autocast_in_backward(make_step: StepFactory, precision: Precision, batch: Batch) -> Verdict:
    """Autocast must be off in the backward pass, which runs in the forward pass's dtypes."""
    step = make_step(precision)
    device = batch[0].device.type
    seen: list[bool] = []
    with on_backward(step.model, lambda _: seen.append(torch.is_autocast_enabled(device))):
        step(*batch)
    return verdict(
        "autocast_in_backward",
        f"autocast is {'on' if any(seen) else 'off'} in it"
        if seen
        else "there was no backward pass",
        "a backward pass outside of autocast",
        good=bool(seen) and not any(seen),
        remedy="leave the autocast context before loss.backward()",
    )


def is_channels_last(images: Tensor) -> bool:
    """Tell whether a tensor (N, C, H, W) lies with its channels last in memory."""
    return images.is_contiguous(memory_format=torch.channels_last)


def memory_format(make_step: StepFactory, precision: Precision, batch: Batch) -> Verdict:
    """A channels_last convolution must be given channels_last images.

    One that is not converts layouts in every step, and the gain is lost. Weights of one input
    channel, or of one pixel, are both at once and say nothing.
    """
    step = make_step(precision)
    layers: dict[str, nn.Module] = {
        name: layer
        for name, layer in step.model.named_modules()
        if isinstance(layer, nn.Conv2d)
        and is_channels_last(layer.weight)
        and not layer.weight.is_contiguous()
    }
    calls = layer_calls(step, batch, layers, lambda inputs, _: is_channels_last(inputs[0]))
    lost = [name for name, kept in calls if not kept]
    found = f"{len(calls)} convolutions in channels_last" if layers else "no channels_last weights"
    if lost:
        found = f"channels_last is lost before {and_more(lost)}"
    elif layers and not calls:
        found = "no channels_last convolution was called"
    return verdict(
        "memory_format",
        found,
        "channels_last images for channels_last weights",
        good=not lost and bool(calls) is bool(layers),
        remedy="pass images.to(memory_format=torch.channels_last), and keep .contiguous() and"
        " .view() out of the model",
    )
