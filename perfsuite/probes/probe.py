"""What a probe is, and what all of them share.

A probe looks at the structure of a training step. It builds fresh steps with
`make_step(precision)`, which has to start from the same weights each time, takes some steps on
one batch, and returns a verdict with one line that says what is wrong.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from perfsuite.devices.precision import Precision
from perfsuite.judging.gates import Outcome, Verdict

MOST_SKIPPED = 8

Batch = tuple[Tensor, Tensor]
"""Images and labels, on the device."""


class ProbedStep(Protocol):
    """A training step that can be looked into.

    It has to look up its optimizer and its scaler by these names whenever it is called, since a
    probe may put another optimizer in place.
    """

    model: nn.Module  # its output is one tensor
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler  # a disabled one where gradients are not scaled

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Take one step and return its loss."""


StepFactory = Callable[[Precision], ProbedStep]
Probe = Callable[[StepFactory, Precision, Batch], Verdict]


def verdict(probe: str, found: str, wanted: str, *, good: bool | None, remedy: str = "") -> Verdict:
    """Return a probe's verdict, inconclusive where `good` is None; a PASS needs no remedy."""
    return Verdict(
        gate=f"probe {probe}",
        outcome={True: Outcome.PASS, False: Outcome.FAIL, None: Outcome.INCONCLUSIVE}[good],
        figure=found,
        threshold=wanted,
        reason="" if good else remedy,
    )


def without_dropout(step: ProbedStep) -> ProbedStep:
    """Return the step with its dropout layers idle: on a GPU their masks differ by dtype.

    By their share, since a step may call ``train()``. Dropout that is a function and no layer
    goes on.
    """
    for module in step.model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
    return step


def settled(step: ProbedStep, batch: Batch) -> ProbedStep:
    """Return the step with a scale that no longer overflows, its weights as they were.

    A scaler starts high and skips a step or two until its scale fits; that is healthy, and no
    step to look at. Nothing is done where gradients are not scaled. A scale that still
    overflows after MOST_SKIPPED steps is left for the probe to find.
    """
    if not step.scaler.is_enabled():
        return step
    before = [parameter.detach().clone() for parameter in step.model.parameters()]
    scale = step.scaler.get_scale()
    for _ in range(MOST_SKIPPED):
        step(*batch)
        if step.scaler.get_scale() >= scale:
            break
        scale = step.scaler.get_scale()
    with torch.no_grad():
        for parameter, value in zip(step.model.parameters(), before, strict=True):
            parameter.copy_(value)
    return step


def on_backward(model: nn.Module, see: Callable[[Tensor], Any]) -> RemovableHandle:
    """Call `see` with the gradient of each output of the model, until the handle is left.

    What it returns, if anything, takes the gradient's place.
    """

    def watch(_: nn.Module, __: Any, output: Tensor) -> None:
        output.register_hook(see)

    return model.register_forward_hook(watch)


def and_more(found: Sequence[str]) -> str:
    """Return the first of what was found, and how many more there are."""
    return found[0] + (f" and {len(found) - 1} more" if found[1:] else "")


def dtype_name(dtype: torch.dtype) -> str:
    """Return "float16" for torch.float16."""
    return str(dtype).removeprefix("torch.")
