"""An arm: a training that is ready to be timed, and all that may be asked of it."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from perfsuite.devices.precision import Precision, backend_flags
from perfsuite.training.batches import (
    Shapes,
    TrainingError,
    doubled,
    endless,
    moved,
    resized,
    samples_in,
    shapes_of,
)
from perfsuite.training.parallel import laid_as
from perfsuite.training.snapshot import snapshot

PERTURBATION = 1e-6
"""By what share of itself `Arm.perturb` changes a weight: some units in its last place."""


class NotShownError(TrainingError):
    """Something that a training does not show, and that is needed to look into its step."""


class CheckedStep:
    """A step in the float32 arithmetic of its precision, whose loss is checked and detached."""

    __slots__ = ("__weakref__", "_flags", "_step")

    def __init__(
        self, step: Callable[[Any], Any], precision: Precision, *, benchmark: bool = False
    ) -> None:
        self._step = step
        # Made once: entering is all that they cost a step.
        self._flags = backend_flags(precision, benchmark=benchmark)

    def __call__(self, batch: Any) -> Tensor:
        """Take one step and return its loss; TrainingError if that is no scalar tensor."""
        with self._flags:
            loss = self._step(batch)
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            shape = f" of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else ""
            raise TrainingError(
                f"the step returned a {type(loss).__name__}{shape}: return the loss, a tensor of"
                " one value, and not its .item(), for which the host would wait"
            )
        return loss.detach()


@dataclass(slots=True, kw_only=True, eq=False)
class Arm:
    """A training at one precision, with its own state; what is timed."""

    step: Callable[[Any], Any]
    batches: Iterator[Any]  # without end
    device: torch.device
    precision: Precision = Precision.fp32
    parts: Mapping[str, Any] = field(default_factory=dict)  # what a step changes, by name
    samples: Callable[[Any], int] = samples_in
    tokens: Callable[[Any], int] | None = None
    flops: float | None = None  # of a step
    move: bool = True  # whether batches are moved to the device before they are timed
    accepts: Mapping[str, str] = field(default_factory=dict)  # see Training
    right: Callable[[], Tensor] | None = None  # see Training
    epoch_steps: int | None = None  # batches in an epoch, where their number is known
    written: Callable[[Any], Any] | None = None  # the step itself, where `step` captures it
    of_one_rank: bool = False  # whether one of several ranks takes its steps, and the others none
    label: str = ""  # what it is called beside others; its precision unless given
    watcher: Callable[["Arm"], None] | None = None  # is shown it whenever it has trained

    shapes: Shapes | None = field(default=None, init=False)  # of its batches, once one was taken

    def __post_init__(self) -> None:
        self.label = self.label or str(self.precision)

    def take(self, steps: int) -> list[Any]:
        """Return the next batches; TrainingError if one's shape differs from the others'."""
        batches = list(islice(self.batches, steps))
        if self.move:
            batches = [moved(batch, self.device) for batch in batches]
        for batch in batches:
            shapes = shapes_of(batch)
            if self.shapes is None:
                self.shapes = shapes
            elif shapes != self.shapes:
                raise TrainingError(_how_shapes_differ(self.shapes, shapes))
        return batches

    def fed_by(self, batches: Iterable[Any]) -> "Arm":
        """Return an arm of the same state that is timed fetching its batches from these, in epochs.

        The batches that it is handed are left unused. As they are asked for after steps, those of
        its own are thrown away that workers have ready by then, and a step is taken: they may have
        had all the time that other arms took.
        """
        feed, ready, stepped = endless(batches), _prefetched(batches), False

        def step(_: Any) -> Any:
            nonlocal stepped
            stepped = True
            return self.step(moved(next(feed), self.device))

        def unused() -> Iterator[Any]:
            nonlocal stepped
            for batch in self.batches:
                if stepped and ready:
                    for _ in range(ready):
                        next(feed)
                    step(batch)  # by the end of which workers that are fast enough are ahead again
                stepped = False
                yield batch

        label = f"{self.label}, fed by a loader"
        return replace(self, step=step, batches=unused(), label=label)

    def enlarged(self, doublings: int) -> "Arm":
        """Return an arm of the same state whose batches have so often twice as many samples."""
        if not doublings:
            return self
        batches, times = self.batches, 2**doublings
        for _ in range(doublings):
            batches = map(doubled, batches)
        flops = None if self.flops is None else self.flops * times
        return replace(self, batches=batches, flops=flops, label=f"{self.label}, batch x{times}")

    def resized(self, samples: int) -> "Arm":
        """Return an arm of the same state whose batches have so many samples of its own.

        All tensors change in proportion, be it of a list of micro-batches, to one row at least.
        """
        batches = (self._with_samples(batch, samples) for batch in self.batches)
        return replace(self, batches=batches, flops=None)

    def _with_samples(self, batch: Any, samples: int) -> Any:
        own = self.samples(batch)
        return (
            batch if samples == own else resized(batch, max(1, samples_in(batch) * samples // own))
        )

    def as_written(self) -> "Arm":
        """Return an arm of the same state whose step is captured as no graph."""
        return self if self.written is None else replace(self, step=self.written, written=None)

    def snapshot(self) -> Callable[[], None]:
        """Copy all that a step changes, random state included; return what goes back to that."""
        return snapshot(self.parts, self.device)

    def has_trained(self) -> None:
        """Show it to its watcher, if it has one: it has taken the steps that it was made for."""
        if self.watcher is not None:
            self.watcher(self)

    def perturb(self, seed: int, by: float = PERTURBATION) -> None:
        """Change each weight by about such a share of itself, as `seed` decides."""
        noise = torch.Generator().manual_seed(seed)  # of its own: dropout draws from torch's
        with torch.no_grad():
            for parameter in self.parameters():
                drawn = torch.randn(parameter.shape, generator=noise).to(parameter.device)
                parameter.mul_(1 + by * laid_as(drawn, parameter))

    @property
    def models(self) -> list[nn.Module]:
        """The modules in its state; NotShownError if there is none."""
        return self._shown(nn.Module, "model")

    @property
    def optimizers(self) -> list[torch.optim.Optimizer]:
        """The optimizers in its state; NotShownError if there is none."""
        return self._shown(torch.optim.Optimizer, "optimizer")

    @property
    def scaler(self) -> torch.amp.GradScaler:
        """The gradient scaler in its state, a disabled one if there is none."""
        scalers = [part for part in self.parts.values() if isinstance(part, torch.amp.GradScaler)]
        return next(iter(scalers), torch.amp.GradScaler(self.device.type, enabled=False))

    def named_parameters(self) -> dict[str, nn.Parameter]:
        """Return the parameters of all models, each once; NotShownError if there is no model."""
        models = self.models
        prefix = len(models) > 1
        return {
            f"{index}.{name}" if prefix else name: parameter
            for index, model in enumerate(models)
            for name, parameter in model.named_parameters()
        }

    def parameters(self) -> list[nn.Parameter]:
        """Return the parameters of all models; NotShownError if there is no model."""
        return list(self.named_parameters().values())

    def _shown(self, kind: type[Any], name: str) -> list[Any]:
        found = [part for part in self.parts.values() if isinstance(part, kind)]
        if not found:
            raise NotShownError(f"add the {name} to `state` of perfsuite.Training")
        return found


def _prefetched(batches: Any) -> int:
    """Return how many batches the workers of a DataLoader may have ready."""
    each = getattr(batches, "prefetch_factor", None) or 0  # None without workers
    return int(getattr(batches, "num_workers", 0) * each)


def _how_shapes_differ(first: Shapes, other: Shapes) -> str:
    told = [
        f"{name} {shape} {dtype}".replace("torch.", "")
        for shapes, others in ((first, other), (other, first))
        for name, shape, dtype in shapes
        if (name, shape, dtype) not in others
    ]
    return (
        f"batches change their shape ({' and '.join(told[:4])}), so that their steps' times do not"
        " compare: pad them to one length, and leave an epoch's last one out, with drop_last=True"
    )
