"""Time that passes only where something is said to cost some."""

import gc
from collections.abc import Callable

import torch
from torch import Tensor

from perfsuite.judging.blocks import Block, State, Turn
from perfsuite.measuring.timing import HostClock, time_block

NOTHING = torch.empty(0)


class FakeTime:
    """A clock that stands still unless it is moved."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class FakeArm:
    """An arm whose batches, step and restoring cost time of their own."""

    def __init__(
        self, time: FakeTime, step_s: Callable[[int], float] = lambda _: 1.0, name: str = ""
    ) -> None:
        self.time, self.step_s, self.name = time, step_s, name
        self.steps = self.restored = 0
        self.collector_ran: list[bool] = []

    def take(self, steps: int) -> list[tuple[Tensor, Tensor]]:
        self.time.now_s += 1000.0
        return [(NOTHING, NOTHING)] * steps

    def step(self, images: Tensor, labels: Tensor) -> Tensor:  # noqa: ARG002  # as a step is called
        self.time.now_s += self.step_s(self.steps)
        self.steps += 1
        self.collector_ran.append(gc.isenabled())
        return NOTHING

    def restore(self) -> None:
        self.time.now_s += 5000.0
        self.restored += 1

    def turn(self, steps: int = 1) -> Turn:
        return lambda: time_block(self, HostClock(self.time), steps)


def block(wall_s: float = 1.0, throttled: tuple[str, ...] = ()) -> Block:
    return Block(steps=1, wall_s=wall_s, device_s=None, throttled=throttled)


def state(**known: int) -> State:
    return State(load_1min=0.0, cpu_mhz=None, **known)
