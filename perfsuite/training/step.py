"""The training step, written once for every precision."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from perfsuite.devices.choice import device_of
from perfsuite.devices.precision import Precision, backend_flags
from perfsuite.training.batches import TrainingError
from perfsuite.training.parallel import Parallel, spread

Criterion = Callable[[Tensor, Tensor], Tensor]  # from (logits, labels) to a scalar loss


class TrainStep:
    """One training step: ``step((inputs, targets)) -> loss``.

    The loss is a detached scalar on the device, so that nothing in the step waits for the
    GPU. That holds for float16 too if the optimizer is a fused one; any other makes
    ``GradScaler`` read its overflow flag on the host every step.

    With `graph` it is captured as a graph, once it is the step of a `Training`; a fused optimizer
    has to be capturable for that. With `backend` the model is compiled by that backend of
    ``torch.compile``, such as "inductor".

    With `parallel` the ranks of the default process group train it together: "ddp" averages their
    gradients, "fsdp2" shards the weights too and casts in autocast's place; see
    `perfsuite.training.parallel.spread`. `model` is then the wrapped one: give that to the
    `Training`. A gradient scaler skips a step on all ranks where one overflows, since all are
    given the same gradients, and FSDP2 asks all of them.

    Raises ValueError if not all parameters are on one device, DeviceError if nothing is known
    of it, PrecisionError if it cannot do the precision, TrainingError if ranks cannot train it.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        precision: Precision = Precision.fp32,
        criterion: Criterion = nn.functional.cross_entropy,
        graph: bool = False,
        backend: str | Callable[..., Any] | None = None,
        parallel: Parallel | None = None,
    ) -> None:
        devices = {parameter.device for parameter in model.parameters()}
        if len(devices) != 1:
            found = ", ".join(sorted(map(str, devices))) or "no parameters"
            raise ValueError(f"the model must have its parameters on one device, found {found}")
        self.device = devices.pop()
        self.precision = Precision(precision)
        device_of(self.device).require(self.precision)
        if graph and parallel is not None:
            raise TrainingError(f"parallel={parallel!r} is captured as no graph: leave out graph")
        if parallel is not None:
            model = spread(model, optimizer, parallel, self.precision)
        self.model = model
        self._called = model if backend is None else torch.compile(model, backend=backend)
        self.optimizer = optimizer
        self.criterion = criterion
        self.scaler = self.precision.scaler(self.device)
        # Made once: entering them is all that they cost a step.
        self._flags = backend_flags(self.precision)
        self.graph = graph
        cast = Precision.fp32 if parallel == "fsdp2" else self.precision
        self._autocast = cast.autocast(self.device, cache=False if graph else None)

    def __call__(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Take one step and return its loss."""
        inputs, targets = batch
        with self._flags:
            self.optimizer.zero_grad(set_to_none=True)
            with self._autocast:
                loss = self.criterion(self._called(inputs), targets)
            # A disabled scaler hands loss and optimizer through unchanged.
            self.scaler.scale(loss).backward()
            self.scaler.step(self.optimizer)
            self.scaler.update()
        return loss.detach()


class StepCounter:
    """Counts the steps that optimizers take from now on, in the order in which they are given."""

    def __init__(
        self, optimizers: Iterable[torch.optim.Optimizer], *, scaled: bool, graphed: bool = False
    ) -> None:
        self._optimizers = list(optimizers)
        self._before = [applied_steps(each) or 0 for each in self._optimizers]
        self._called = [0] * len(self._optimizers)
        self._scaled, self._graphed = scaled, graphed
        for index, optimizer in enumerate(self._optimizers):
            optimizer.register_step_post_hook(lambda *_, index=index: self._note(index))

    def _note(self, index: int) -> None:
        self._called[index] += 1

    def taken(self) -> list[int | None]:
        """Return how many steps each took; None where that is not known.

        A fused optimizer under a gradient scaler is called every step and decides on the device
        whether to take it, and one that was captured in a graph is called no more, so that only
        its own count can tell.
        """
        return [self._taken(index) for index in range(len(self._optimizers))]

    def _taken(self, index: int) -> int | None:
        optimizer = self._optimizers[index]
        if (counted := applied_steps(optimizer)) is not None:
            return counted - self._before[index]
        decides = self._scaled and getattr(optimizer, "_step_supports_amp_scaling", False)
        return None if decides or self._graphed else self._called[index]


def applied_steps(optimizer: torch.optim.Optimizer) -> int | None:
    """Return how many steps the optimizer took, or None if it keeps no count."""
    counts = [int(state["step"]) for state in optimizer.state.values() if "step" in state]
    return max(counts) if counts else None
