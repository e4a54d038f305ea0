"""The turns of a worker process: a block is timed whenever the coordinator asks for one."""

from collections.abc import Callable, Iterator

import pytest

from perfsuite.against.messages import Go, Line, Progress, Ready, Request, TakeBlock, Timed
from perfsuite.judging.blocks import Block, Turn
from perfsuite.judging.interleaving import Duet


class RemoteTurns:
    """Turns that the coordinator hands out; see `measuring.turns.Turns`."""

    def __init__(self, line: Line[Request]) -> None:
        self._line = line
        self.explains = False

    def show(self, what: str, done: int, of: int) -> None:
        self._line.send(Progress(what=what, done=done, of=of))

    def asked(self, what: str, blocks: int) -> Iterator[int]:  # noqa: ARG002  # the coordinator decides how many
        self._line.send(Ready(what=what))
        taken = 0
        while isinstance(request := self._line.receive(), TakeBlock):
            yield taken
            taken += 1
        self.explains = isinstance(request, Go) and request.explain

    def gave(self, block: Block) -> None:
        self._line.send(Timed(block=block))

    def two(self, what: str, first: Turn, second: Turn, clear: Callable[[Duet], bool]) -> Duet:  # noqa: ARG002  # refused
        pytest.fail(
            "perf.duet judges one tree by itself: mark the benchmark one_tree, or time an arm"
            " with perf.time",
            pytrace=False,
        )
