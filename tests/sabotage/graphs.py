"""Planted steps that are compiled, or captured as a CUDA graph."""

from typing import Any

import torch
from torch import Tensor, nn

from perfsuite.devices.choice import choose_device
from perfsuite.devices.precision import Precision, backend_flags
from perfsuite.judging.gates import Verdict
from perfsuite.probes.captured import graphed_step
from perfsuite.probes.registry import run_probe
from perfsuite.training.snapshot import parts_of, snapshot
from perfsuite.training.step import TrainStep
from perfsuite.training.workload import Training, Workload
from sabotage import environments as env
from sabotage.row import CatalogueRow
from sabotage.steps import BackwardUnderAutocast


class Compiled(TrainStep):
    """A compiled model; right."""

    def __init__(self, model: nn.Module, *arguments: Any, **named: Any) -> None:
        # Without a C++ compiler: the backend runs what was traced as it is.
        compiled: Any = torch.compile(model, backend="aot_eager")
        super().__init__(compiled, *arguments, **named)


class CompiledBackwardUnderAutocast(Compiled, BackwardUnderAutocast):
    """A compiled model whose backward pass runs under autocast."""


class Graphed(TrainStep):
    """The whole step as a CUDA graph, captured with autocast's cache off; right.

    For a precision without a scaler.
    """

    cached = False

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._autocast = torch.autocast(
            self.device.type,
            dtype=self.precision.autocast_dtype,
            enabled=self.precision.is_amp,
            cache_enabled=self.cached,
        )
        self.captured: torch.cuda.CUDAGraph | None = None

    def __call__(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch
        if self.captured is None:
            self.captured = self._capture(images, labels)
        self.images.copy_(images)
        self.labels.copy_(labels)
        self.captured.replay()
        return self.loss.clone()

    def _capture(self, images: Tensor, labels: Tensor) -> torch.cuda.CUDAGraph:
        self.images, self.labels = images.clone(), labels.clone()
        restore = snapshot(parts_of([self.model, self.optimizer, self.scaler]), self.device)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self._body()
        torch.cuda.current_stream().wait_stream(side)
        restore()  # the warm-up must not count as training
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.loss = self._body()
        return graph

    def _body(self) -> Tensor:
        with backend_flags(self.precision):
            self.optimizer.zero_grad(set_to_none=True)
            with self._autocast:
                loss = self.criterion(self.model(self.images), self.labels)
            # There may be a region around it all: not for the backward pass.
            with torch.autocast(self.device.type, enabled=False):
                loss.backward()
            self.optimizer.step()
        return loss.detach()


class GraphedWithCache(Graphed):
    """Captured with the cache on: inside a region, the graph reads the casts of the warm-up."""

    cached = True


class MovingRate(TrainStep):
    """The learning rate falls to 0.7 of itself in every step; a tensor, as a graph needs it."""

    of_tensor = True

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        (self.group,) = self.optimizer.param_groups
        self.group["lr"] = torch.tensor(1e-2, device=self.device) if self.of_tensor else 1e-2

    def __call__(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        loss = super().__call__(batch)
        self.group["lr"] *= 0.7
        return loss


class CapturedRate(MovingRate):
    """The same, of a number, which a graph goes on using as it was."""

    of_tensor = False


def as_a_graph(kind: type[TrainStep]) -> env.Check:
    """Return a check of a step that perfsuite captures, on a simulated GPU where there is none."""

    def make(precision: Precision, device: torch.device, _: int) -> Training:
        model = env.one_convolution().to(device)
        adam = torch.optim.Adam(model.parameters(), fused=True, capturable=True)
        step = kind(model, adam, precision=precision, graph=True)
        batches = env.batches(device, seed=0, steps=20)
        return Training(step=step, batches=batches, state=[model, adam, step.scaler])

    def check(device: torch.device) -> tuple[Verdict, ...]:
        chosen = choose_device("simulated:h100" if device.type == "cpu" else device.type)
        try:
            work = Workload(name="graph", make=make)
            (batch,) = work.arm(Precision.bf16, chosen.place).take(1)
            made = lambda precision: work.arm(precision, chosen.place)  # noqa: E731  # as a probe wants it
            return (run_probe(graphed_step, made, Precision.bf16, batch),)
        finally:
            choose_device("auto" if device.type != "cpu" else "cpu")

    return check


CAPTURED_RATE = CatalogueRow(
    number=33,
    plant="a learning rate that moves is captured as a number in a CUDA graph",
    because={"probe graphed_step": "in the graph"},
    healthy=as_a_graph(MovingRate),
    planted=as_a_graph(CapturedRate),
)
