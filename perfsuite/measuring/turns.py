"""Who says when a block is timed: this process alone, or the other end of a comparison."""

from collections.abc import Callable
from typing import Protocol

from perfsuite.judging.blocks import Block, Turn
from perfsuite.judging.interleaving import Duet, duet
from perfsuite.measuring.timing import time_blocks

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
    """Turns of a process that measures one tree by itself.

    Sampling takes up to `budget_s` seconds if its verdict stays unclear.
    """

    explains = True

    def __init__(self, show: Show, *, budget_s: float) -> None:
        self.show = show
        self._budget_s = budget_s

    def one(self, what: str, turn: Turn, blocks: int) -> tuple[Block, ...]:
        """Time so many blocks."""
        return time_blocks(turn, blocks=blocks, progress=self._progress(f"timing {what}"))

    def two(self, what: str, first: Turn, second: Turn, clear: Callable[[Duet], bool]) -> Duet:
        """Time both in ABBA order until it is clear, or the budget is spent."""
        progress = self._progress(f"{what} in turns")
        return duet(first, second, clear=clear, budget_s=self._budget_s, progress=progress)

    def _progress(self, what: str) -> Callable[[int, int], None]:
        return lambda done, of: self.show(what, done, of)
