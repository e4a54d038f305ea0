"""Timing in blocks of steps, and warm-up until steady.

Only the steps themselves lie between two readings of a clock: batches are fetched before, the
garbage collector rests, and the device is idle at both ends. Every time is in seconds per step.
"""

import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

from perfsuite.devices.device import Clock, Sensor
from perfsuite.judging.blocks import SLOW, Block, Turn, resting_collector
from perfsuite.judging.estimates import is_steady

STEADY_WINDOW = 2
STEADY_TOLERANCE = 0.05


@runtime_checkable
class Timeable(Protocol):
    """What can be timed: an arm, or anything with batches, a step and a way back."""

    label: str  # what it is called

    @property
    def step(self) -> Callable[[Any], Any]:
        """One training step."""

    def take(self, steps: int) -> list[Any]:
        """Return the next batches, ready for the step."""

    def snapshot(self) -> Callable[[], None]:
        """Return what goes back to the state of now."""


def time_block(arm: Timeable, clock: Clock, steps: int) -> Block:
    """Time `steps` steps of `arm`; where one rank takes them alone, there is no row of ranks."""
    batches = arm.take(steps)
    clock.start()
    with clock.taking(arm.step) as step:
        for batch in batches:
            step(batch)
            clock.lap()
    block = block_of(clock, steps)
    return replace(block, ranks_s=()) if getattr(arm, "of_one_rank", False) else block


def block_of(clock: Clock, steps: int) -> Block:
    """End a region of steps, and return it as a block.

    Each step has its time, of which a block keeps what tells its stalls (see `judging.stalls`):
    run files would hold little else.
    """
    wall_s, device_s = clock.stop()
    laps_s, host_s = clock.laps_s(), clock.host_s()
    typical_s = statistics.median_low(laps_s) if laps_s else None
    return Block(
        steps=steps,
        wall_s=wall_s / steps,
        device_s=None if device_s is None else device_s / steps,
        host_s=None if host_s is None else host_s / steps,
        typical_s=typical_s,
        slow_s=tuple(s for s in laps_s if typical_s is not None and s > SLOW * typical_s),
        ranks_s=tuple(each_s / steps for each_s in clock.ranks_s()),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmUp:
    """How an arm was warmed up: its blocks, and whether they had become steady."""

    blocks: tuple[Block, ...]
    steady: bool


def warm_up(arm: Timeable, clock: Clock, *, steps: int, max_blocks: int = 12) -> WarmUp:
    """Run blocks until two bring no new extreme, then restore.

    It goes back to its state after the first step: an optimizer makes its own state in that, and
    would make it anew in the first block that is timed. An arm that never becomes steady is timed
    all the same, and says so.
    """
    blocks: list[Block] = []
    steady = False
    with resting_collector():
        for batch in arm.take(1):
            arm.step(batch)
        restore = arm.snapshot()
        while not steady and len(blocks) < max_blocks:
            blocks.append(time_block(arm, clock, steps))
            times = [block.step_s for block in blocks]
            steady = is_steady(times, window=STEADY_WINDOW, tolerance=STEADY_TOLERANCE)
    restore()
    return WarmUp(blocks=tuple(blocks), steady=steady)


def watched(turn: Turn, sensor: Sensor) -> Turn:
    """Return a turn that notes the machine's state around its block, outside what is timed."""

    def take() -> Block:
        before = sensor.read()
        block = turn()
        after = sensor.read()
        return replace(block, state=after, throttled=sensor.held_back(before, after))

    return take
