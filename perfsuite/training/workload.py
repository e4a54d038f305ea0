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
from perfsuite.training.step import Criterion, Snapshot, TrainStep

Parameters = Iterable[nn.Parameter]


def fused_adam(parameters: Parameters) -> torch.optim.Optimizer:
    """Return Adam, fused, so that a gradient scaler need not wait for it.

    The learning rate is one at which the network learns fast enough in so short a run for a
    fault in the step to show in the mean loss: over 40 steps of 16 images a doubled step
    moves it several times as far at 5e-4 as at the default of 1e-3.
    """
    return torch.optim.Adam(parameters, lr=5e-4, fused=True)


@dataclass(slots=True, kw_only=True)
class Arm:
    """A workload at one precision, with its own state; what is timed.

    Attributes:
        precision: of the step.
        step: the training step, or any function of (images, labels) to a loss.
        order: batches without end, on the device.
        restore: goes back to the state before any step.
        label: what it is called beside others; its precision unless given.
    """

    precision: Precision
    step: Callable[[Tensor, Tensor], Tensor]
    order: Iterator[tuple[Tensor, Tensor]]
    restore: Callable[[], None]
    label: str = ""

    _batch_size: int | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        """Call it by its precision, where nothing says more."""
        self.label = self.label or str(self.precision)

    def take(self, steps: int) -> list[tuple[Tensor, Tensor]]:
        """Return the next `steps` batches.

        Raises:
            DataError: one is not of the size of those before it, so that its step would take
                another time.
        """
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
        """Return the arm whose step fetches its own batch, from these, epoch after epoch.

        What the fetching takes is then part of what is timed. The model and its state are
        shared, and the batches that the arm would have been handed are left unused.
        """
        feed = chain.from_iterable(repeat(batches))

        def step(images: Tensor, labels: Tensor) -> Tensor:
            fresh_images, fresh_labels = next(feed)
            return self.step(fresh_images.to(images.device), fresh_labels.to(labels.device))

        return replace(self, step=step, label=f"{self.label}, fed by a loader")


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What is trained, and in what portions; the seam for a model of one's own.

    To run the suite on another model, override the `workload` fixture with one of these.

    Attributes:
        name: recorded with every figure.
        make_model: returns the model, freshly initialised, on the CPU.
        make_optimizer: returns an optimizer of the parameters it is given.
        criterion: the loss, from (logits, labels) to a scalar.
        batch_size: images in a step.
        block_steps: training steps in one timed block.
        convergence_steps: training steps of each run that convergence is judged by.
        convergence_seeds: how many pairs of such runs, at least two.
        table_images: images in an epoch of the tutorial's table.
    """

    name: str
    make_model: Callable[[], nn.Module]
    make_optimizer: Callable[[Parameters], torch.optim.Optimizer] = fused_adam
    criterion: Criterion = field(default=nn.functional.cross_entropy)
    batch_size: int
    block_steps: int
    convergence_steps: int
    convergence_seeds: int
    table_images: int

    def step(self, precision: Precision, device: torch.device, seed: int) -> TrainStep:
        """Return the step of a fresh model whose weights and dropout `seed` decides.

        Raises:
            PrecisionError: the device cannot do the precision.
        """
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
        """Return an arm on the device that `digits` lie on.

        Raises:
            PrecisionError: the device cannot do the precision.
            ValueError: there are fewer digits than a batch takes.
        """
        step = self.step(precision, digits.labels.device, seed)
        initial: Snapshot = step.snapshot()
        return Arm(
            precision=precision,
            step=step,
            order=digits.batches(self.batch_size, seed),
            restore=lambda: step.restore(initial),
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
