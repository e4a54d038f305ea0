"""What a probe is, and what all of them share.

A probe looks at the structure of a training step. It builds fresh arms with `make(precision)`,
which has to start from the same weights each time, takes some steps on one batch, and returns
what it found.
"""

import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from perfsuite.devices.precision import Precision
from perfsuite.devices.ranks import ranks
from perfsuite.judging.gates import Outcome, Verdict, not_gated
from perfsuite.measuring.sites import in_backward
from perfsuite.training.arm import Arm, NotShownError
from perfsuite.training.batches import named_tensors

MOST_SKIPPED = 8

MakeArm = Callable[[Precision], Arm]
Value = TypeVar("Value")


class Found(NamedTuple):
    """What a probe found."""

    figure: str
    good: bool | None  # None where nothing can be said
    wanted: str = ""  # in place of what the probe always wants
    remedy: str = ""  # in place of what the probe always recommends
    name: str = ""  # of the tensor that is blamed, by which it may be accepted too


@dataclass(frozen=True, slots=True)
class Probe:
    """A look at a step, what is wanted of it, and what to do where that is not found."""

    look: Callable[[MakeArm, Precision, Any], Found]
    wanted: str
    remedy: str
    captured: bool = False  # whether it looks at a step as captured, and not as written

    @property
    def name(self) -> str:
        """The name of its gate, after "probe"."""
        return self.look.__name__

    def __call__(self, make: MakeArm, precision: Precision, batch: Any) -> Verdict:
        """Look, and judge; NOT GATED what the training does not show, or accepts."""
        gate = f"probe {self.name}"

        @wraps(make)
        def as_looked_at(precision: Precision) -> Arm:
            arm = make(precision)
            # A graph that is replayed calls no hook.
            return arm if self.captured else arm.as_written()

        # Of several ranks all make one, whatever each of them finds: wrapping a model is done
        # together.
        accepts = make(precision).accepts if ranks().many else None
        try:
            found = self.look(as_looked_at, precision, batch)
        except NotShownError as error:
            return not_gated(gate, "not looked at", str(error))
        if not found.good and accepts is None:
            accepts = make(precision).accepts
        if not found.good and accepts is not None:
            meant = accepts.get(found.figure, accepts.get(found.name))
            if meant is not None:
                return not_gated(gate, found.figure, meant)
        return Verdict(
            gate=gate,
            outcome={True: Outcome.PASS, False: Outcome.FAIL, None: Outcome.INCONCLUSIVE}[
                found.good
            ],
            figure=found.figure,
            threshold=found.wanted or self.wanted,
            reason="" if found.good else found.remedy or self.remedy,
        )


def probe(
    *, wanted: str, remedy: str, captured: bool = False
) -> Callable[[Callable[[MakeArm, Precision, Any], Found]], Probe]:
    """Make a probe of a function, by whose name it goes."""
    return lambda look: Probe(look, wanted, remedy, captured)


def without_dropout(arm: Arm) -> Arm:
    """Return the arm with its dropout layers idle: on a GPU their masks differ by dtype.

    By their share, since a step may call ``train()``. Dropout that is a function and no layer
    goes on.
    """
    for model in arm.models:
        for module in model.modules():
            if isinstance(module, nn.modules.dropout._DropoutNd):
                module.p = 0.0
    return arm


def settled(arm: Arm, batch: Any) -> Arm:
    """Return the arm with a scale that no longer overflows, its weights as they were.

    A scaler starts high and skips a step or two until its scale fits; that is healthy, and no
    step to look at. Nothing is done where gradients are not scaled. A scale that still
    overflows after MOST_SKIPPED steps is left for the probe to find.
    """
    scaler = arm.scaler
    if not anywhere(scaler.is_enabled()):
        return arm
    before = [parameter.detach().clone() for parameter in arm.parameters()]
    scale = scaler.get_scale()
    for _ in range(MOST_SKIPPED):
        arm.step(batch)
        if all(told_by_all(scaler.get_scale() >= scale)):
            break
        scale = scaler.get_scale()
    with torch.no_grad():
        for parameter, value in zip(arm.parameters(), before, strict=True):
            parameter.copy_(value)
    return arm


def told_by_all(value: Value) -> list[Value]:
    """Return what each rank has to say, by rank: how ranks meet within a probe.

    A rank that is done with the probe, whatever for, comes to this meeting with its verdict: it
    waits in `run_probe`. The others end there too, and no later meeting is mistaken for another.

    Raises:
        NotShownError: a rank is done.
    """
    told = ranks().each(value)
    for rank, each in enumerate(told):
        if isinstance(each, Verdict):
            raise NotShownError(each.reason or f"rank {rank} was done before the others")
    return told


def anywhere(found: bool) -> bool:
    """Tell whether it is so on any rank: all of them decide alike."""
    return any(told_by_all(found))


def over_ranks(value: float) -> float:
    """Return the mean over ranks, by which all of them decide alike."""
    return statistics.fmean(told_by_all(value))


def before_step(optimizer: torch.optim.Optimizer, see: Callable[[Any], None]) -> RemovableHandle:
    """Call `see` with the optimizer before each of its steps, once its gradients are there.

    A closure that makes them within the step, as Lightning's does, is called first.
    """

    def hook(_: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        closure = named.get("closure", next(iter(arguments[1:]), None))
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        see(optimizer)
        return None if closure is None else ((optimizer, lambda: loss), {})

    return optimizer.register_step_pre_hook(hook)


def handed_scale(optimizer: torch.optim.Optimizer) -> float:
    """Return the scale that a scaler has handed a fused optimizer, one if there is none."""
    scale = getattr(optimizer, "grad_scale", None)
    return 1.0 if scale is None else float(scale)


def named_modules(arm: Arm) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules of all models by name, as `named_parameters` tells their parameters."""
    models = arm.models
    for index, model in enumerate(models):
        yield from model.named_modules(prefix=str(index) if len(models) > 1 else "")


@contextmanager
def on_backward(arm: Arm, see: Callable[[Tensor], Any]) -> Iterator[None]:
    """Call `see` with the gradient of each tensor that a model returns and that has one.

    What it returns, if anything, takes the gradient's place.
    """

    def watch(*called: Any) -> None:
        for _name, tensor in named_tensors(called[-1]):
            if tensor.requires_grad:
                tensor.register_hook(see)

    with on_forward(arm, watch):
        yield


@contextmanager
def on_forward(arm: Arm, see: Callable[..., Any]) -> Iterator[None]:
    """Call `see` with each model, its inputs, by place and by name, and its output after a call.

    Of a model that is not called itself, as a LightningModule, it is the parts that are. What a
    checkpoint computes again is no call, and often ends in the midst of one.
    """
    depth = 0

    def enter(*_: Any) -> None:
        nonlocal depth
        depth += not in_backward()

    def leave(*called: Any) -> None:
        nonlocal depth
        if in_backward():
            return
        depth -= 1
        if not depth:
            see(*called)

    with ExitStack() as hooks:
        for module in (module for model in arm.models for module in model.modules()):
            hooks.enter_context(module.register_forward_pre_hook(enter))
            hooks.enter_context(module.register_forward_hook(leave, with_kwargs=True))
        yield


def and_more(found: Sequence[str]) -> str:
    """Return the first of what was found, and how many more there are."""
    return found[0] + (f" and {len(found) - 1} more" if found[1:] else "")


def dtype_name(dtype: torch.dtype) -> str:
    """Return "float16" for torch.float16."""
    return str(dtype).removeprefix("torch.")
