"""Timing of a loop that somebody else owns, such as a framework's ``fit``."""

from dataclasses import replace

from perfsuite.devices.device import Clock, Sensor
from perfsuite.judging.blocks import Block
from perfsuite.measuring.timing import block_of
from perfsuite.measuring.turns import Turns
from perfsuite.training.batches import TrainingError


class Loop:
    """Times a loop in blocks of steps; call `step` whenever one has ended, in a callback.

    Times are from the end of a step to the end of another: whatever the loop does between its
    steps, such as fetching batches and logging, counts.
    """

    def __init__(
        self, turns: Turns, clock: Clock, sensor: Sensor, *, blocks: int, steps: int, skip: int
    ) -> None:
        self.blocks: list[Block] = []
        self._turns, self._clock, self._sensor = turns, clock, sensor
        self._asked = turns.asked("a loop", blocks)
        self._wanted, self._steps = blocks, steps
        self._left = skip  # steps to the end of a block, or to the first of all
        self._timing = self._done = False
        self._taken = 0
        self._before = sensor.read()

    def step(self) -> None:
        """Note that a step has ended."""
        self._taken += 1
        self._left -= 1
        if self._timing:
            self._clock.lap()
        if self._left > 0 or self._done:
            return
        if self._timing:
            block = block_of(self._clock, self._steps)
            after = self._sensor.read()
            held_back = self._sensor.held_back(self._before, after)
            self.blocks.append(replace(block, state=after, throttled=held_back))
            self._turns.gave(self.blocks[-1])
        self._done = next(self._asked, None) is None
        self._timing, self._left = not self._done, self._steps
        if self._timing:
            self._before = self._sensor.read()
            self._clock.start()

    def finish(self) -> list[Block]:
        """Return the blocks; TrainingError if the loop ended before all that were wanted."""
        if not self._done:
            raise TrainingError(
                f"the loop took {self._taken} steps, in which {len(self.blocks)} blocks of"
                f" {self._steps} were timed, and more are wanted: let it take more steps, at least"
                f" {self._wanted * self._steps} after those that are skipped"
            )
        return self.blocks
