"""Probes of what a step computes in: dtypes, float32's arithmetic, and memory format."""

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from perfsuite.devices.choice import device_of
from perfsuite.devices.precision import Precision, fp32_flags, read_flags
from perfsuite.probes.probe import (
    Found,
    MakeArm,
    and_more,
    dtype_name,
    named_modules,
    on_backward,
    on_forward,
    probe,
)
from perfsuite.training.arm import Arm
from perfsuite.training.batches import named_tensors

T = TypeVar("T")
# Convolutions of any dimension, transposed ones too.
_COMPUTES = (nn.modules.conv._ConvNd, nn.Linear)


def layers_of(arm: Arm, kinds: type[nn.Module] | tuple[type[nn.Module], ...]) -> dict[str, Any]:
    """Return the layers of some kinds, by name, of all models."""
    return {name: layer for name, layer in named_modules(arm) if isinstance(layer, kinds)}


def layer_calls(
    arm: Arm, batch: Any, layers: dict[str, nn.Module], look: Callable[..., T]
) -> list[tuple[str, T]]:
    """Take one step; return a layer's name and `look(inputs, output)` for each call of a layer."""
    calls: list[tuple[str, T]] = []

    def see(name: str, _: nn.Module, *seen: Any) -> None:
        calls.append((name, look(*seen)))

    with ExitStack() as hooks:
        for name, layer in layers.items():
            hooks.enter_context(layer.register_forward_hook(partial(see, name)))
        arm.step(batch)
    return calls


@probe(
    wanted="layers that compute in the precision, on float32 parameters",
    remedy="is the forward pass inside autocast, and the model not cast itself?",
)
def layer_dtypes(make: MakeArm, precision: Precision, batch: Any) -> Found:
    """Every convolution and linear layer must compute in the precision, on float32 parameters.

    Products that are functions and no layers are not seen.
    """
    arm = make(precision)
    expected = precision.autocast_dtype or torch.float32
    wanted = f"layers that compute in {dtype_name(expected)}, on float32 parameters"
    calls = layer_calls(arm, batch, layers_of(arm, _COMPUTES), lambda _, output: output.dtype)
    wrong = [
        f"layer {name} computed in {dtype_name(dtype)}"
        for name, dtype in calls
        if dtype is not expected
    ] + [
        f"{name} is {dtype_name(parameter.dtype)}"
        for name, parameter in arm.named_parameters().items()
        if parameter.dtype is not torch.float32
    ]
    if wrong:
        return Found(and_more(wrong), good=False, wanted=wanted)
    if not calls:
        remedy = "does the step train the model that is in its state?"
        return Found("no convolution or linear layer was called", None, wanted, remedy)
    return Found(f"{len(calls)} layers computed in {dtype_name(expected)}", True, wanted)


@probe(
    wanted="a float32 loss",
    remedy="compute the loss inside autocast, or cast the logits to float32",
)
def loss_dtype(make: MakeArm, precision: Precision, batch: Any) -> Found:
    """The loss must be float32, in float16 its scaled value overflows.

    What the scaler is given counts too: a loss that is cast once it is too late is no better.
    """
    arm = make(precision)
    scaler, seen = arm.scaler, list[torch.dtype]()
    scale = scaler.scale

    def see(outputs: Any) -> Any:
        if isinstance(outputs, Tensor):
            seen.append(outputs.dtype)
        return scale(outputs)

    # On the instance, which is a fresh arm's own.
    scaler.scale = see  # type: ignore[method-assign]  # put back below
    try:
        seen.append(arm.step(batch).dtype)
    finally:
        del scaler.scale
    wrong = [dtype for dtype in seen if dtype is not torch.float32]
    return Found(f"the loss is {dtype_name((wrong or seen)[0])}", good=not wrong)


class Sample:
    """A product and a convolution in float32, against their results in float64."""

    def __init__(self, device: torch.device) -> None:
        drawn = torch.Generator().manual_seed(0)  # of its own: the step draws from torch's
        product = [torch.randn(128, 128, generator=drawn) for _ in range(2)]
        images = torch.randn(4, 16, 16, 16, generator=drawn)
        kernels = torch.randn(16, 16, 3, 3, generator=drawn)
        self._cases: dict[str, tuple[Callable[..., Tensor], list[Tensor]]] = {
            "product": (torch.matmul, [each.to(device) for each in product]),
            "convolution": (nn.functional.conv2d, [images.to(device), kernels.to(device)]),
        }
        self._exact = {
            name: compute(*(each.double() for each in operands))
            for name, (compute, operands) in self._cases.items()
        }
        self._found: list[tuple[str, Tensor]] = []

    def compute(self) -> None:
        """Compute both, as a step would here; this reads nothing, so a CUDA graph may hold it."""
        with torch.no_grad(), torch.autocast(self._exact["product"].device.type, enabled=False):
            for name, (compute, operands) in self._cases.items():
                self._found.append((name, compute(*operands)))

    def errors(self) -> dict[str, float]:
        """Return the largest error of each kind, as a share of its result."""
        worst = dict.fromkeys(self._cases, 0.0)
        for name, found in self._found:
            exact = self._exact[name]
            worst[name] = max(worst[name], float((found.double() - exact).norm() / exact.norm()))
        return worst


# Measured: IEEE 2e-7, TF32 3e-4, bfloat16 2e-3.
_LARGEST_ERROR = {"ieee": 1e-5, "tf32": 1e-3}


@probe(
    wanted="float32 computed as ieee, or as tf32 where that was asked for",
    remedy="leave the backend flags for convolutions and products alone: they are set for each"
    " precision around the step; and is NVIDIA_TF32_OVERRIDE or ONEDNN_DEFAULT_FPMATH_MODE set?",
)
def arithmetic(make: MakeArm, precision: Precision, batch: Any) -> Found:
    """Float32 convolutions and products must be IEEE, or TF32 where that was asked for.

    In both passes: after the forward pass and as the backward pass begins the flags are read, and
    a product and a convolution are computed, since the environment may overrule the flags.
    """
    arm = make(precision)
    sample = Sample(arm.device)
    wanted = fp32_flags(precision)
    asked = "tf32" if precision is Precision.tf32 else "ieee"
    seen: set[str] = set()

    def look(*_: Any) -> None:
        flags = read_flags()
        # oneDNN's, which has no TF32 to be asked for, are told only where they are not as wanted.
        seen.update(
            str(flags[name])
            for name, value in wanted.items()
            if flags[name] != value or not name.startswith("mkldnn")
        )
        sample.compute()

    with on_forward(arm, look), on_backward(arm, look):
        arm.step(batch)
    if not seen:
        return Found("the model was not called", False, f"float32 computed as {asked}")
    device_of(arm.device).synchronize()  # the sample may have been computed on another stream
    figure = f"float32 is computed as {', '.join(sorted(seen))}"
    # Flags that are wrong say it all.
    off = {n: e for n, e in sample.errors().items() if not e <= _LARGEST_ERROR[asked]}
    if off and seen == {asked}:
        figure += f" by its flags, but a {and_more(list(off))} is off by {max(off.values()):.0e}"
    return Found(figure, seen == {asked} and not off, f"float32 computed as {asked}")


@probe(
    wanted="a backward pass outside of autocast",
    remedy="leave the autocast context before loss.backward()",
)
def autocast_in_backward(make: MakeArm, precision: Precision, batch: Any) -> Found:
    """Autocast must be off in the backward pass, which runs in the forward pass's dtypes."""
    arm = make(precision)
    seen: list[bool] = []
    with on_backward(arm, lambda _: seen.append(torch.is_autocast_enabled(arm.device.type))):
        arm.step(batch)
    figure = f"autocast is {'on' if any(seen) else 'off'} during the backward pass"
    return Found(
        figure if seen else "there was no backward pass", good=bool(seen) and not any(seen)
    )


def is_dense(tensor: Tensor) -> bool:
    """Tell whether a tensor fills the memory that it spans, in whatever order, or is expanded."""
    if not tensor.numel() or 0 in tensor.stride():
        return True
    spanned = sum(
        (size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)
    )
    return spanned + 1 == tensor.numel()


def is_channels_last(images: Tensor) -> bool:
    """Tell whether a tensor (N, C, H, W) lies with its channels last in memory."""
    return images.is_contiguous(memory_format=torch.channels_last)


@probe(
    wanted="images that are dense in memory, and channels_last for channels_last weights",
    remedy="pass images.to(memory_format=torch.channels_last), or images.contiguous() where they"
    " are strided; and keep .contiguous() and .view() out of the model",
)
def memory_format(make: MakeArm, precision: Precision, batch: Any) -> Found:
    """A channels_last convolution must be given channels_last images.

    One that is not converts layouts in every step, and the gain is lost. Weights of one input
    channel, or of one pixel, are both at once and say nothing. Images that a model is given must
    fill their memory, as those do not that are a view of a larger tensor, which is copied in every
    step. Views of other dimensions are no images: a first token, or all of a text but the last.
    """
    arm = make(precision)
    strided: list[str] = []

    def see(_: nn.Module, inputs: Any, named: Any, __: Any) -> None:
        given = [*named_tensors(inputs, "input "), *named_tensors(named, "input ")]
        strided.extend(
            name
            for name, each in given
            if each.is_floating_point() and each.dim() == 4 and not is_dense(each)
        )

    layers = {
        name: layer
        for name, layer in layers_of(arm, nn.Conv2d).items()
        if is_channels_last(layer.weight) and not layer.weight.is_contiguous()
    }
    with on_forward(arm, see):
        calls = layer_calls(
            arm, batch, layers, lambda inputs, _: is_channels_last(next(named_tensors(inputs))[1])
        )
    lost = [name for name, kept in calls if not kept]
    found = f"{len(calls)} convolutions in channels_last" if layers else "no channels_last weights"
    if lost:
        found = f"the input of {and_more(lost)} is no longer channels_last"
    elif layers and not calls:
        found = "no channels_last convolution was called"
    if strided:
        found = f"{and_more(strided)} of a model is strided"
    return Found(found, good=not strided and not lost and bool(calls) is bool(layers))
