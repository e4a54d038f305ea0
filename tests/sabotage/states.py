"""Planted steps whose state is not what it seems: some of it is hidden, or drawn from no seed."""

from typing import Any

import torch
from torch import Tensor

from perfsuite.training.step import TrainStep


class HiddenState(TrainStep):
    """Counts its calls, which nothing puts back, and weighs its loss by them."""

    calls = 0

    def __call__(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        self.calls += 1
        return super().__call__(batch) * self.calls


class Unseeded(TrainStep):
    """Draws a weight from no seed."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        draw = torch.Generator(self.device)
        draw.seed()
        with torch.no_grad():
            next(self.model.parameters()).normal_(generator=draw)
