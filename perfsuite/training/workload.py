"""Workloads: a model, its criterion, its optimizer and how it is cut into blocks."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain, islice, repeat

import torch
from torch import Tensor, nn

from perfsuite.devices.precision import Precision
from perfsuite.training.cfg import TUTORIAL_CFG, scale_width
from perfsuite.training.data import DataError, Digits
from perfsuite.training.model import build_model
from perfsuite.training.step import Criterion, TrainStep

Parameters = Iterable[nn.Parameter]


def fused_adam(parameters: Parameters) -> torch.optim.Optimizer:
    """Return Adam, fused, so that a gradient scaler need not wait for it."""
    # Over 40 steps of 16 images a doubled step, a fault that has to be seen, moves the mean
    # loss several times as far at this learning rate as at the default of 1e-3.
    return torch.optim.Adam(parameters, lr=5e-4, fused=True)


@dataclass(slots=True, kw_only=True)
class Arm:
    """A workload at one precision, with its own state; what is timed."""

    precision: Precision
    step: Callable[[Tensor, Tensor], Tensor]  # a TrainStep, or any from (images, labels) to a loss
    order: Iterator[tuple[Tensor, Tensor]]  # batches without end, on the device
    restore: Callable[[], None]  # goes back to the state before any step
    label: str = ""  # what it is called beside others; its precision unless given

    _batch_size: int | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.label = self.label or str(self.precision)

    def take(self, steps: int) -> list[tuple[Tensor, Tensor]]:
        """Return the next batches; DataError if one's size, and so its step's time, differs."""
        batches = list(islice(self.order, steps))
        for _, labels in batches:
            if self._batch_size is None:
                self._batch_size = len(labels)
            elif len(labels) != self._batch_size:
                raise DataError(
                    f"a ragged batch: {len(labels)} images among batches of {self._batch_size};"
                    " leave the last one of an epoch out, with drop_last=True"
                )
        return batches

    def fed_by(self, batches: Iterable[tuple[Tensor, Tensor]]) -> "Arm":
        """Return an arm of the same state that is timed fetching its batches from these, in epochs.

        The batches that it is handed are left unused.
        """
        feed = chain.from_iterable(repeat(batches))

        def step(images: Tensor, labels: Tensor) -> Tensor:
            fresh_images, fresh_labels = next(feed)
            return self.step(fresh_images.to(images.device), fresh_labels.to(labels.device))

        return replace(self, step=step, label=f"{self.label}, fed by a loader")


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What is trained, and in what portions.

    To run the suite on another model, override the `workload` fixture with one of these.
    """

    name: str  # recorded with every figure
    make_model: Callable[[], nn.Module]  # freshly initialised, on the CPU
    make_optimizer: Callable[[Parameters], torch.optim.Optimizer] = fused_adam
    criterion: Criterion = field(default=nn.functional.cross_entropy)
    batch_size: int
    block_steps: int  # in one timed block
    convergence_steps: int  # in each run that convergence is judged by
    convergence_seeds: int  # pairs of such runs, at least two
    table_images: int  # in an epoch of the tutorial's table

    def step(self, precision: Precision, device: torch.device, seed: int) -> TrainStep:
        """Return the step of a fresh model, its weights and dropout decided by `seed`."""
        torch.manual_seed(seed)
        # channels_last and the like are the model's own business: it is moved, nothing more.
        model = self.make_model().to(device).train()
        return TrainStep(
            model,
            self.make_optimizer(model.parameters()),
            precision=precision,
            criterion=self.criterion,
        )

    def arm(self, precision: Precision, digits: Digits, seed: int = 0) -> Arm:
        """Return an arm on the device of `digits`, of which there must be a batch at least."""
        step = self.step(precision, digits.labels.device, seed)
        return Arm(
            precision=precision,
            step=step,
            order=digits.batches(self.batch_size, seed),
            restore=step.restorer(),
        )


WORKLOADS = {
    "tutorial": Workload(
        name="tutorial",
        make_model=lambda: build_model(TUTORIAL_CFG),
        batch_size=128,
        block_steps=10,
        convergence_steps=100,
        convergence_seeds=8,
        table_images=4096,
    ),
    "tiny": Workload(
        name="tiny",
        make_model=lambda: build_model(scale_width(TUTORIAL_CFG, 8)),
        batch_size=16,
        block_steps=2,
        convergence_steps=40,
        convergence_seeds=6,
        table_images=256,
    ),
}
