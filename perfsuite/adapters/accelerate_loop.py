"""A loop of Accelerate as a training: what is prepared, unwrapped; accumulation, in one step."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.scheduler import AcceleratedScheduler
from accelerate.state import AcceleratorState, GradientState, PartialState
from accelerate.utils import GradientAccumulationPlugin

from perfsuite.adapters.asked_precision import require_asked
from perfsuite.devices.precision import Precision
from perfsuite.training.batches import MicroBatches
from perfsuite.training.snapshot import parts_of
from perfsuite.training.workload import MakeTraining, Training


def own_state() -> Callable[[], None]:
    """Give what follows a state of Accelerate of its own; return what comes back to it.

    A process has one, with one precision in it; trainings of two take turns.
    """
    kinds = (AcceleratorState, GradientState, PartialState)
    states: list[dict[str, Any]] = [{} for _ in kinds]

    def enter() -> None:
        for kind, state in zip(kinds, states, strict=True):
            kind._shared_state = state

    enter()
    return enter


def unwrapped(state: Any, scaler: torch.amp.GradScaler | None) -> dict[str, Any]:
    """Return the parts of a state as torch has them, and the gradient scaler, if there is one."""
    inner = {AcceleratedOptimizer: "optimizer", AcceleratedScheduler: "scheduler"}
    parts = {
        name: getattr(part, inner[type(part)]) if type(part) in inner else part
        for name, part in parts_of(state).items()
    }
    return parts | ({} if scaler is None else {"scaler": scaler})


def require_mixed(accelerator: Accelerator, precision: Precision) -> None:
    """Raise TrainingError where it computes in another precision, as for fp16 on a CPU."""
    found = accelerator.mixed_precision if accelerator.native_amp else "no"
    if found == "fp16" and accelerator.scaler is None:
        found = "fp16 without a gradient scaler"
    wanted = str(precision) if precision.is_amp else "no"
    names = {"no": "fp32"}
    require_asked(
        precision,
        accelerator.device,
        found=names.get(found, found),
        wanted=names.get(wanted, wanted),
    )


def of_accelerator(
    make: Callable[[Accelerator, int], Training], *, accumulate: int = 1
) -> MakeTraining:
    """Return how to make a training, from a function of an Accelerator and a seed.

    The training's step takes one batch of the prepared loader. It is called `accumulate` times,
    on as many batches, for one step of the optimizer.
    """

    def training(precision: Precision, device: torch.device, seed: int) -> Training:
        enter = own_state()
        accelerator = Accelerator(
            mixed_precision=str(precision) if precision.is_amp else "no",
            cpu=device.type == "cpu",
            # An epoch's end is no end of a step, since batches are fetched before they are timed.
            gradient_accumulation_plugin=GradientAccumulationPlugin(
                num_steps=accumulate, sync_with_dataloader=False
            ),
        )
        made = make(accelerator, seed)
        require_mixed(accelerator, precision)
        tokens = made.tokens

        def step(batches: list[Any]) -> torch.Tensor:
            enter()
            return torch.stack([made.step(batch).detach() for batch in batches]).mean()

        return replace(
            made,
            step=step,
            batches=MicroBatches(made.batches, accumulate),
            state=unwrapped(made.state, accelerator.scaler),
            samples=lambda batches: sum(made.samples(batch) for batch in batches),
            tokens=None if tokens is None else lambda batches: sum(map(tokens, batches)),
        )

    return training
