"""Who says when a block is timed: this process alone, or the other end of a comparison."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Protocol

from perfsuite.judging.blocks import Block, Turn
from perfsuite.judging.interleaving import Duet, duet
from perfsuite.judging.stopping import Show

STRETCH_S, USUAL_BUDGET_S = 0.5, 60.0
"""So 48 stretches take 24 s at most with the usual budget, and less with a smaller one."""


class Turns(Protocol):
    """Lets warm arms be timed."""

    explains: bool  # whether what was timed is to be profiled
    two_arms: bool  # whether two arms may take turns; if not, two trees do
    stretch_s: float  # how long a stretch of `Bench.sustain` may be, if it has several steps

    def show(self, what: str, done: int, of: int) -> None:
        """Show how many of how many turns are done."""

    def asked(self, what: str, blocks: int) -> Iterator[int]:
        """Yield whenever a block of one arm is wanted: so often, or as the other end decides."""

    def gave(self, block: Block) -> None:
        """Hand over the block that was wanted."""

    def two(self, what: str, first: Turn, second: Turn, clear: Callable[[Duet], bool]) -> Duet:
        """Time two arms in turns until `clear`."""


class Alone:
    """Turns of a process that measures one tree, within a budget if a verdict stays unclear."""

    explains = True
    two_arms = True

    def __init__(
        self, show: Show, *, budget_s: float, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.show = show
        self._budget_s, self._now = budget_s, now
        self.stretch_s = min(STRETCH_S, STRETCH_S * budget_s / USUAL_BUDGET_S)

    def asked(self, what: str, blocks: int) -> Iterator[int]:
        """Yield so often."""
        for index in range(blocks):
            yield index
            self.show(f"timing {what}", index + 1, blocks)

    def gave(self, block: Block) -> None:
        """Keep nothing: who timed it has it."""

    def two(self, what: str, first: Turn, second: Turn, clear: Callable[[Duet], bool]) -> Duet:
        """Time both in ABBA order until it is clear, or the budget is spent."""
        progress = partial(self.show, f"{what} in turns")
        return duet(
            first,
            second,
            clear=clear,
            budget_s=self._budget_s,
            progress=progress,
            now=self._now,
        )
