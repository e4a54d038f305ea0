"""What activation checkpointing computes anew for the backward pass: FLOPs that are no progress."""

import sys
from typing import TYPE_CHECKING, Any

import torch
import torch.utils.checkpoint
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from perfsuite.measuring.sites import in_backward

if TYPE_CHECKING:
    from types import FrameType


class Recomputation(TorchDispatchMode):
    """Counts, while entered, the FLOPs of forward passes that checkpoints repeat in backward."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch gives it no types
        self.flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Compute, and count it if it is computed anew."""
        del types  # part of torch's signature
        result = func(*args, **(kwargs or {}))
        formula = flop_registry.get(getattr(func, "overloadpacket", None))
        # The gradients of a checkpoint's own backward pass are made without recording any.
        if formula is not None and in_backward() and torch.is_grad_enabled() and _checkpointed():
            self.flops += int(formula(*args, **(kwargs or {}), out_val=result))
        return result


def _checkpointed() -> bool:
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and frame.f_code.co_filename != torch.utils.checkpoint.__file__:
        frame = frame.f_back
    return frame is not None
