"""Who says when a block is timed: this process alone, or the other end of a comparison."""

from collections.abc import Callable
from functools import partial
from typing import Protocol

from perfsuite.judging.blocks import Block, Turn, resting_collector
from perfsuite.judging.interleaving import Duet, duet

Show = Callable[[str, int, int], None]  # what is being done, how many parts of it, of how many


class Turns(Protocol):
    """Lets warm arms be timed."""

    explains: bool  # whether what was timed is to be profiled

    def show(self, what: str, done: int, of: int) -> None:
        """Show progress."""

    def one(self, what: str, turn: Turn, blocks: int) -> tuple[Block, ...]:
        """Time blocks of one arm: so many, or as many as the other end asks for."""

    def two(self, what: str, first: Turn, second: Turn, clear: Callable[[Duet], bool]) -> Duet:
        """Time two arms in turns until `clear`."""


class Alone:
    """Turns of a process that measures one tree, within a budget if a verdict stays unclear."""

    explains = True

    def __init__(self, show: Show, *, budget_s: float) -> None:
        self.show = show
        self._budget_s = budget_s

    def one(self, what: str, turn: Turn, blocks: int) -> tuple[Block, ...]:
        """Time so many blocks."""
        timed: list[Block] = []
        with resting_collector():
            while len(timed) < blocks:
                timed.append(turn())
                self.show(f"timing {what}", len(timed), blocks)
        return tuple(timed)

    def two(self, what: str, first: Turn, second: Turn, clear: Callable[[Duet], bool]) -> Duet:
        """Time both in ABBA order until it is clear, or the budget is spent."""
        progress = partial(self.show, f"{what} in turns")
        return duet(first, second, clear=clear, budget_s=self._budget_s, progress=progress)
