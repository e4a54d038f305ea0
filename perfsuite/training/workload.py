"""Workloads: how to make a training, for a precision, on a device, from a seed."""

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from operator import length_hint
from typing import Any

import numpy as np
import torch
from torch import Tensor

from perfsuite.devices.precision import Precision
from perfsuite.training.arm import Arm, CheckedStep
from perfsuite.training.batches import TrainingError, endless, samples_in
from perfsuite.training.graphed import GraphedStep
from perfsuite.training.levers import Levers
from perfsuite.training.snapshot import parts_of


@dataclass(kw_only=True, eq=False)
class Training:
    """A training, freshly made.

    Attributes:
        step: takes a batch and returns the loss, a tensor of one value; one call is one step of
            each optimizer, with all that belongs to it: accumulation, scaling, clipping.
        batches: any iterable; it is read again when it ends, so not a generator that ends.
        state: all that a step changes, in a list or a mapping: models, optimizers, gradient
            scaler, schedulers and anything else with ``state_dict`` and ``load_state_dict``. It is
            copied and put back, and the probes find models, optimizers and scaler in it.
        samples: how many samples a batch has, by default the length of its first tensor.
        tokens: how many tokens a batch has, for tokens a second.
        flops: of a step, by default counted where it can be.
        move: whether batches are moved to the device outside of what is timed, or by the step.
        accepts: what a probe would blame, word for word, and why it is meant to be so here; it is
            shown, and NOT GATED. A tensor that ranks hold another of, by its name alone.
        right: tells which samples that were held out are told rightly, a tensor of bools, in the
            same order each time; it changes nothing.
        graph: whether the step is captured, on a device that has graphs, and then launched at
            once; by default as the step itself says. The first steps are plain ones. A fused
            optimizer has to be capturable, a learning rate that changes a tensor.
    """

    step: Callable[[Any], Any]
    batches: Iterable[Any]
    state: Any
    samples: Callable[[Any], int] = samples_in
    tokens: Callable[[Any], int] | None = None
    flops: float | None = None
    move: bool = True
    accepts: Mapping[str, str] = field(default_factory=dict)
    right: Callable[[], Tensor] | None = None
    graph: bool | None = None


MakeTraining = Callable[[Precision, torch.device, int], Training]
"""From precision, device and seed; equal seeds must give equal weights and equal batches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What is trained, and in what portions.

    Attributes:
        name: recorded with every figure, which are compared only where it is the same.
        make: makes a fresh training, from precision, device and seed.
        data: what batches are of; recorded and compared likewise.
        learnable: whether there is something to be learnt from the batches.
        block_steps: steps in one timed block.
        convergence_steps: steps in each run that convergence is judged by.
        convergence_seeds: pairs of such runs, at least two.
        ledger_samples: of a batch, for the ledger, of which all but FLOPs and bytes are the same
            for few; None: all of them.
    """

    name: str
    make: MakeTraining
    data: str = "own"
    learnable: bool = True
    block_steps: int = 5
    convergence_steps: int = 40
    convergence_seeds: int = 6
    ledger_samples: int | None = None

    def arm(
        self,
        precision: Precision,
        device: torch.device,
        seed: int = 0,
        *,
        levers: Levers = Levers(),  # noqa: B008  # it cannot be changed
    ) -> Arm:
        """Return a fresh training; whatever draws random numbers does so from `seed`.

        Raises:
            TrainingError: what was made is no training.
            LeverError: a lever cannot be pulled on it.
            DeviceError: it is to be captured, and the device has no graphs.
        """
        precision = Precision(precision)
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        made = self.make(precision, device, seed)
        if not isinstance(made, Training):
            raise TrainingError(
                f"workload {self.name!r} made a {type(made).__name__}: return a perfsuite.Training"
            )
        parts = parts_of(made.state)
        levers.pull(parts, device)
        checked = partial(CheckedStep, precision=precision, benchmark=levers.cudnn_benchmark)
        step = checked(made.step)
        wanted = getattr(made.step, "graph", False) if made.graph is None else made.graph
        graph = wanted or levers.graph
        captured = GraphedStep(made.step, parts, device) if graph else None
        return Arm(
            precision=precision,
            device=device,
            step=step if captured is None else checked(captured),
            written=None if captured is None else step,
            batches=levers.on(endless(made.batches)),
            parts=parts,
            samples=made.samples,
            tokens=made.tokens,
            flops=made.flops,
            move=made.move,
            accepts=made.accepts,
            right=made.right,
            epoch_steps=length_hint(made.batches) or None,
        ).enlarged(levers.doublings)
