"""Precision as a value: the autocast dtype, whether gradients are scaled, and backend flags.

fp32 here means IEEE arithmetic everywhere. PyTorch's own default does not: cuDNN convolutions
take TF32 while matrix products do not, so a speed-up "over fp32" measured with the defaults is
a speed-up over a mixture. And on a CPU with bfloat16 units oneDNN computes float32 in bfloat16
where `torch.set_float32_matmul_precision("medium")` was called. `backend_flags` sets all of them,
and restores what stood there.
"""

from collections.abc import Callable
from enum import StrEnum

import torch


class PrecisionError(RuntimeError):
    """A precision that the device cannot do."""


class Precision(StrEnum):
    """How the arithmetic of a training step is done.

    Attributes:
        fp32: IEEE single precision in convolutions and in products.
        tf32: single precision storage, TF32 tensor cores in convolutions and in products.
        fp16: autocast to float16, with gradient scaling.
        bf16: autocast to bfloat16, without gradient scaling.
    """

    fp32 = "fp32"
    tf32 = "tf32"
    fp16 = "fp16"
    bf16 = "bf16"

    @property
    def autocast_dtype(self) -> torch.dtype | None:
        """The dtype that autocast casts to, or None where there is no autocast."""
        return {Precision.fp16: torch.float16, Precision.bf16: torch.bfloat16}.get(self)

    @property
    def scales_gradients(self) -> bool:
        """Whether gradients are scaled: float16 has too few exponent bits to go without."""
        return self is Precision.fp16

    @property
    def rounding(self) -> float:
        """By what share of itself a number is rounded at most before it is multiplied."""
        if self is Precision.tf32:
            return 2.0**-11
        return torch.finfo(self.autocast_dtype or torch.float32).eps / 2

    @property
    def is_amp(self) -> bool:
        """Whether this is automatic mixed precision."""
        return self.autocast_dtype is not None

    def autocast(self, device: torch.device, *, cache: bool | None = None) -> torch.autocast:
        """Return autocast to its dtype on a device; one that does nothing without autocast.

        Without a cache it casts a weight at each of its uses, as a step has to that is captured.
        """
        dtype, enabled = self.autocast_dtype, self.is_amp
        return torch.autocast(device.type, dtype=dtype, enabled=enabled, cache_enabled=cache)

    def scaler(self, device: torch.device) -> torch.amp.GradScaler:
        """Return a gradient scaler, a disabled one where gradients are not scaled."""
        return torch.amp.GradScaler(device.type, enabled=self.scales_gradients)


# Only the API of torch >= 2.9: reading the older allow_tf32 after writing the newer raises.
# By torch's backend and operation; the last three are oneDNN's, for CPUs.
# `set_float32_matmul_precision` writes the flags of products, CUDA's and oneDNN's; its own getter
# raises once they differ from what it wrote.
_FP32 = {
    "cuda.matmul": ("cuda", "matmul"),
    "cudnn.conv": ("cuda", "conv"),
    "cudnn.rnn": ("cuda", "rnn"),
    "mkldnn.matmul": ("mkldnn", "matmul"),
    "mkldnn.conv": ("mkldnn", "conv"),
    "mkldnn.rnn": ("mkldnn", "rnn"),
}
# What `torch.backends.cuda.matmul.fp32_precision` and its like call, and take six times as long
# for: flags are read and set in every step.
_read_flag: Callable[[str, str], str] = torch._C._get_fp32_precision_getter
_write_flag: Callable[[str, str, str], str] = torch._C._set_fp32_precision_setter
# In what half-precision products of cuBLAS are summed, which changes both speed and result.
_SUMS = (
    "allow_fp16_reduced_precision_reduction",
    "allow_bf16_reduced_precision_reduction",
    "allow_fp16_accumulation",
)


def fp32_flags(precision: Precision) -> dict[str, str]:
    """Return what `backend_flags` sets. oneDNN gets no TF32: it has that on Intel's GPUs only."""
    return {
        f"{name}.fp32_precision": "tf32"
        if precision is Precision.tf32 and not name.startswith("mkldnn")
        else "ieee"
        for name in _FP32
    }


def read_flags() -> dict[str, str | bool]:
    """Return the backend flags that decide how, and how fast, a step computes."""
    flags: dict[str, str | bool] = {
        f"{name}.fp32_precision": _read_flag(*flag) for name, flag in _FP32.items()
    }
    flags |= {f"cuda.matmul.{name}": getattr(torch.backends.cuda.matmul, name) for name in _SUMS}
    flags["cudnn.benchmark"] = torch.backends.cudnn.benchmark
    flags["cudnn.deterministic"] = torch.backends.cudnn.deterministic
    return flags


class backend_flags:  # noqa: N801  # a context manager, used as a function is
    """Set the float32 arithmetic of convolutions and products, and restore it on leaving.

    With `benchmark` cuDNN tries its kernels, too, and takes the fastest. A class and not a
    generator: it is entered in every step, and costs half as much.
    """

    __slots__ = ("_before", "_benchmark", "_wanted", "_was")

    def __init__(self, precision: Precision, *, benchmark: bool = False) -> None:
        self._wanted = list(fp32_flags(precision).values())
        self._before: list[list[str]] = []  # one entry a level: it may be entered inside itself
        self._benchmark = benchmark
        self._was: list[bool] = []

    def __enter__(self) -> None:
        self._before.append([_read_flag(*flag) for flag in _FP32.values()])
        _write(self._wanted)
        if self._benchmark:
            self._was.append(torch.backends.cudnn.benchmark)
            torch.backends.cudnn.benchmark = True

    def __exit__(self, *_: object) -> None:
        _write(self._before.pop())
        if self._benchmark:
            torch.backends.cudnn.benchmark = self._was.pop()


def _write(values: list[str]) -> None:
    for flag, value in zip(_FP32.values(), values, strict=True):
        _write_flag(*flag, value)
