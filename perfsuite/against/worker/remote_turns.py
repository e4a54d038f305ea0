"""The turns of a worker process: a block is timed whenever the other end asks for one."""

from collections.abc import Callable

import pytest

from perfsuite.against.messages import Line
from perfsuite.judging.blocks import Block, Turn, resting_collector
from perfsuite.judging.interleaving import Duet


class RemoteTurns:
    """Turns that the other end of a line hands out."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self.explains = False

    def show(self, what: str, done: int, of: int) -> None:
        """Report progress to the other end."""
        self._line.send("progress", what=what, done=done, of=of)

    def one(self, what: str, turn: Turn, blocks: int) -> tuple[Block, ...]:  # noqa: ARG002  # the other end decides how many
        """Time a block for each request, until the other end has enough."""
        taken = []
        self._line.send("ready", what=what)
        with resting_collector():
            while (request := self._line.receive()["kind"]) == "block":
                taken.append(turn())
                self._line.send("block", block=taken[-1])
        self.explains = request == "explain"
        return tuple(taken)

    def two(self, what: str, first: Turn, second: Turn, clear: Callable[[Duet], bool]) -> Duet:  # noqa: ARG002  # refused
        """Refuse: two arms of one process are held against each other, not against a tree."""
        pytest.fail(
            "perf.duet judges one tree by itself: mark the benchmark one_tree, or time an arm"
            " with perf.time",
            pytrace=False,
        )
