"""Arms that a process of a study is sent instead of training: the time of a step is given."""

import time
from collections.abc import Callable
from itertools import repeat

import torch
from torch import Tensor

from perfsuite.devices.cpu import HostClock

NOTHING = torch.empty(0)
NOW_S = [0.0]
"""The time of this process, which passes only where a step takes some."""


class SteppedArm:
    """An arm whose steps take a time of their own; it may fail at one, or hang."""

    label = "stepped"

    def __init__(
        self, seed: int, *, step_s: float = 0.001, fails_at: int = -1, hangs: bool = False
    ) -> None:
        self.step_s, self.fails_at, self.hangs, self.steps = step_s, fails_at, hangs, 0
        if fails_at == 0:
            raise ValueError(f"no arm for seed {seed}")

    def take(self, steps: int) -> list[Tensor]:
        return list(repeat(NOTHING, steps))

    def step(self, batch: Tensor) -> Tensor:  # noqa: ARG002  # as a step is called
        self.steps += 1
        if self.steps == self.fails_at:
            raise RuntimeError("out of memory")
        while self.hangs:
            time.sleep(60)
        NOW_S[0] += self.step_s
        return NOTHING

    def snapshot(self) -> Callable[[], None]:
        return lambda: None


def make_arm(
    seed: int, *, step_s: float = 0.001, fails_at: int = -1, hangs: bool = False
) -> SteppedArm:
    return SteppedArm(seed, step_s=step_s, fails_at=fails_at, hangs=hangs)


def make_clock() -> HostClock:
    return HostClock(lambda: NOW_S[0])
