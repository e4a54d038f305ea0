"""What a probe is, and what all of them share.

A probe looks at the structure of a training step. It builds fresh steps with
`make_step(precision)`, which has to start from the same weights each time, takes some steps on
one batch, and returns a verdict with one line that says what is wrong.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from perfsuite.gates import Outcome, Verdict
from perfsuite.precision import Precision

__all__ = ["Batch", "Probe", "ProbedStep", "StepFactory", "dtype_name", "on_forward", "verdict"]

Batch = tuple[Tensor, Tensor]
"""Images and labels, on the device."""


class ProbedStep(Protocol):
    """A training step that can be looked into.

    It has to look up its optimizer and its scaler by these names whenever it is called, since a
    probe may put another optimizer in place.

    Attributes:
        model: what is trained; its output is one tensor.
        optimizer: of the model's parameters.
        scaler: a disabled one where gradients are not scaled.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Take one step and return its loss."""


StepFactory = Callable[[Precision], ProbedStep]
Probe = Callable[[StepFactory, Precision, Batch], Verdict]


def verdict(probe: str, found: str, wanted: str, *, good: bool, remedy: str = "") -> Verdict:
    """Return a probe's verdict; the remedy is told only where it is needed."""
    return Verdict(
        gate=f"probe {probe}",
        outcome=Outcome.PASS if good else Outcome.FAIL,
        figure=found,
        threshold=wanted,
        reason="" if good else remedy,
    )


@contextmanager
def on_forward(
    modules: Iterable[nn.Module], see: Callable[..., Any], *, before: bool = False
) -> Iterator[None]:
    """Call `see` after, or before, each forward pass of these modules, as PyTorch's hooks are."""
    handles = [
        module.register_forward_pre_hook(see) if before else module.register_forward_hook(see)
        for module in modules
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def dtype_name(dtype: torch.dtype) -> str:
    """Return "float16" for torch.float16."""
    return str(dtype).removeprefix("torch.")
