"""Processes on one simulated GPU, each of which launches a step of the tutorial's network."""

import random
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

from perfsuite.devices.cards import Card
from perfsuite.devices.choice import choose_device
from perfsuite.devices.precision import Precision
from perfsuite.devices.simulated import Simulated
from perfsuite.judging.blocks import Block, Turn
from perfsuite.measuring.timing import time_block, watched
from perfsuite.training.tutorial import tutorial_workload

STEPS = 4  # of a block

KernelTimes = tuple[tuple[float, str], ...]  # seconds and operator


@cache
def kernels_in(precision: str, doublings: int = 0) -> KernelTimes:
    """Return what a step of the tutorial's network launches, once warm."""
    device = choose_device("simulated:h100")
    assert isinstance(device, Simulated)
    try:
        arm = tutorial_workload("tiny", "synthetic").arm(Precision(precision), device.place)
        first, second = arm.enlarged(doublings).take(2)
        arm.step(first)
        clock = device.clock()
        clock.start()
        with device.noted() as acts:
            arm.step(second)
        clock.stop()
    finally:
        choose_device("cpu")
    return tuple((called_with[0], called_with[1]) for act, called_with in acts if called_with)


class Process:
    """A process with an arm that is warm; its clock follows that of the machine."""

    label = ""

    def __init__(self, card: Card, number: int, kernels: KernelTimes, times: float = 1.0) -> None:
        self.device = Simulated(replace(card, flop_per_s={}), process=number)
        self._kernels, self._times = kernels, times
        self.clock, self.sensor = self.device.clock(), self.device.sensor()

    def step(self, _: Any) -> None:
        """Launch all kernels."""
        for kernel_s, _name in self._kernels:
            self.device.launch(kernel_s * self._times)

    def take(self, steps: int) -> list[Any]:
        """Return batches, of which there are none."""
        return [None] * steps

    def snapshot(self) -> Callable[[], None]:
        """Return nothing: it is warm."""
        raise NotImplementedError("it is warm")

    def turn(self, machine: "WallClock", kept: list[Block] | None = None) -> Turn:
        """Return what times a block when the machine has come to it, and keeps it too."""

        def timed() -> Block:
            return time_block(self, self.clock, STEPS)

        def take() -> Block:
            machine.reach(self)
            block = watched(timed, self.sensor)()
            machine.now_s = self.device.now_s
            if kept is not None:
                kept.append(block)
            return block

        return take


class WallClock:
    """The time of the machine, in which one process works after the other."""

    def __init__(self, draw: random.Random) -> None:
        self._draw = draw
        self.now_s = draw.uniform(0, 10)

    def start(self) -> None:
        """Let a process start, which takes a while."""
        self.now_s += self._draw.uniform(1, 5)

    def reach(self, process: Process) -> None:
        """Bring a process to the time that it is."""
        process.device.host(max(0.0, self.now_s - process.device.now_s))
