"""Arms on a simulated device: time passes only where something is said to take some."""

import gc
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from perfsuite.devices.cards import Card
from perfsuite.devices.simulated import Simulated
from perfsuite.judging.blocks import Block, State, Turn
from perfsuite.measuring.timing import time_block, watched

NOTHING = torch.empty(0)


class FakeTime(Simulated):
    """A simulated device that a host drives at no cost of its own, and its clock."""

    def __init__(self, **about: object) -> None:
        process = about.pop("process", 0)
        card = Card(**{"launch_s": 0.0} | about)  # type: ignore[arg-type]  # Card's own
        super().__init__(card, process=process)  # type: ignore[arg-type]  # a number

    def __call__(self) -> float:
        return self.now_s


class FakeArm:
    """An arm whose batches, step and restoring take time; a step is one kernel."""

    precision = "fp32"

    def __init__(
        self, time: Simulated, step_s: Callable[[int], float] = lambda _: 1.0, label: str = ""
    ) -> None:
        self.time, self.step_s, self.label = time, step_s, label
        self.steps = self.restored = 0
        self.collector_ran: list[bool] = []

    def take(self, steps: int) -> list[Tensor]:
        self.time.host(1000.0)
        return [NOTHING] * steps

    def step(self, batch: Tensor) -> Tensor:  # noqa: ARG002  # as a step is called
        self.time.launch(self.step_s(self.steps))
        self.steps += 1
        self.collector_ran.append(gc.isenabled())
        return NOTHING

    def snapshot(self) -> Callable[[], None]:
        return self._restore

    def _restore(self) -> None:
        self.time.host(5000.0)
        self.restored += 1

    def turn(self, steps: int = 1) -> Turn:
        return lambda: time_block(self, self.time.clock(), steps)

    def watched(self, steps: int = 1) -> Turn:
        return watched(self.turn(steps), self.time.sensor())


class FakeHostBound(FakeArm):
    """An arm whose step launches many kernels of equal length, on a device of its own."""

    def __init__(self, *, launches: int, kernel_s: float, **about: object) -> None:
        self.time: FakeTime = FakeTime(**about)
        super().__init__(self.time, label="bf16")
        self.launches, self.kernel_s = launches, kernel_s

    def step(self, batch: Tensor) -> Tensor:  # noqa: ARG002  # as a step is called
        for _ in range(self.launches):
            self.time.launch(self.kernel_s)
        return NOTHING


def block(wall_s: float = 1.0, throttled: tuple[str, ...] = ()) -> Block:
    return Block(steps=1, wall_s=wall_s, device_s=None, throttled=throttled)


def state(**known: Any) -> State:
    return State(load_1min=0.0, cpu_mhz=None, **known)
