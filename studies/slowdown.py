"""A training step that takes longer than it should, by a share of itself."""

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch

from perfsuite.devices.choice import device_of
from perfsuite.measuring.timing import time_block, warm_up
from perfsuite.training.arm import Arm

SlowedStep = Callable[[Any], Any]


def slowed(arm: Arm, share: float, device: str) -> SlowedStep:
    """Return the arm's step, which takes `share` longer (0.1 for 10 %) than it would."""
    return _on_cuda(arm, share) if device == "cuda" else _on_cpu(arm.step, share)


def _on_cpu(step: SlowedStep, share: float) -> SlowedStep:
    """Return the step, followed by a wait of a share of the time that this very step took."""

    def slow(batch: Any) -> Any:
        started_s = time.perf_counter()
        loss = step(batch)
        until_s = started_s + (time.perf_counter() - started_s) * (1 + share)
        while time.perf_counter() < until_s:
            pass
        return loss

    return slow


def _on_cuda(arm: Arm, share: float) -> SlowedStep:
    """Return the step, followed by a kernel that waits for a share of a warm step's time."""
    clock = device_of(torch.device("cuda")).clock()
    step, restore = arm.step, arm.snapshot()
    warm_up(arm, clock, steps=10)
    step_s = median(time_block(arm, clock, 10).step_s for _ in range(10))
    cycles = 10_000_000
    torch.cuda._sleep(cycles)
    clock.start()
    torch.cuda._sleep(cycles)
    _, slept_s = clock.stop()
    assert slept_s is not None  # CUDA's clock has one
    wait = int(cycles * share * step_s / slept_s)
    restore()

    def slow(batch: Any) -> Any:
        loss = step(batch)
        torch.cuda._sleep(wait)
        return loss

    return slow
