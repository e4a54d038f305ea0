"""Planted steps that are compiled, or captured as a CUDA graph."""

from typing import Any

import torch
from torch import Tensor, nn

from perfsuite.devices.precision import backend_flags
from perfsuite.training.snapshot import parts_of, snapshot
from perfsuite.training.step import TrainStep
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
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch
        if self.graph is None:
            self.graph = self._capture(images, labels)
        self.images.copy_(images)
        self.labels.copy_(labels)
        self.graph.replay()
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
