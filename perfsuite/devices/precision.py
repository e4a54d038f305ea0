"""Precision as a value: the autocast dtype, whether gradients are scaled, and backend flags.

fp32 here means IEEE arithmetic everywhere. PyTorch's own default does not: cuDNN convolutions
take TF32 while matrix products do not, so a speed-up "over fp32" measured with the defaults is
a speed-up over a mixture. `backend_flags` sets both, and restores what stood there.
"""

from enum import StrEnum
from typing import Any

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
    def is_amp(self) -> bool:
        """Whether this is automatic mixed precision."""
        return self.autocast_dtype is not None

    def autocast(self, device: torch.device) -> torch.autocast:
        """Return autocast to its dtype on a device; one that does nothing without autocast."""
        return torch.autocast(device.type, dtype=self.autocast_dtype, enabled=self.is_amp)

    def scaler(self, device: torch.device) -> torch.amp.GradScaler:
        """Return a gradient scaler, a disabled one where gradients are not scaled."""
        return torch.amp.GradScaler(device.type, enabled=self.scales_gradients)


# Only the API of torch >= 2.9: reading the older allow_tf32 after writing the newer raises.
_BACKENDS: dict[str, Any] = {
    "cuda.matmul": torch.backends.cuda.matmul,
    "cudnn.conv": torch.backends.cudnn.conv,  # type: ignore[attr-defined]  # made at import
    "cudnn.rnn": torch.backends.cudnn.rnn,
}


def read_flags() -> dict[str, str | bool]:
    """Return the backend flags that decide how, and how fast, a step computes."""
    flags: dict[str, str | bool] = {
        f"{name}.fp32_precision": backend.fp32_precision for name, backend in _BACKENDS.items()
    }
    flags["cudnn.benchmark"] = torch.backends.cudnn.benchmark
    flags["cudnn.deterministic"] = torch.backends.cudnn.deterministic
    return flags


class backend_flags:  # noqa: N801  # a context manager, used as a function is
    """Set the float32 arithmetic of convolutions and products, and restore it on leaving.

    A class and not a generator: it is entered in every step, and costs half as much.
    """

    __slots__ = ("_before", "_wanted")

    def __init__(self, precision: Precision) -> None:
        self._wanted = "tf32" if precision is Precision.tf32 else "ieee"
        self._before: list[list[str]] = []  # one entry a level: it may be entered inside itself

    def __enter__(self) -> None:
        self._before.append([backend.fp32_precision for backend in _BACKENDS.values()])
        for backend in _BACKENDS.values():
            backend.fp32_precision = self._wanted

    def __exit__(self, *_: object) -> None:
        for backend, before in zip(_BACKENDS.values(), self._before.pop(), strict=True):
            backend.fp32_precision = before
