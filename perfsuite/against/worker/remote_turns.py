"""The turns of a worker process: a block is timed whenever the coordinator asks for one."""

from collections.abc import Callable, Iterator
from functools import partial

import pytest

from perfsuite.against.messages import Go, Line, Progress, Ready, Request, TakeBlock, Timed
from perfsuite.judging.blocks import Block, Turn
from perfsuite.judging.interleaving import Duet, duet
from perfsuite.measuring.turns import STRETCH_S


class RemoteTurns:
    """Turns that the coordinator hands out; see `measuring.turns.Turns`."""

    two_arms = False
    stretch_s = STRETCH_S

    def __init__(self, line: Line[Request], *, one_tree: bool) -> None:
        self._line = line
        self._one_tree = one_tree  # whether two arms of this process may be compared
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

    def two(self, what: str, first: Turn, second: Turn, clear: Callable[[Duet], bool]) -> Duet:  # noqa: ARG002  # a ratio is one figure of a pair
        """Time both here for one look: whether it is clear, all pairs of processes decide."""
        if not self._one_tree:
            pytest.fail(
                "perf.duet judges one tree by itself: mark the benchmark one_tree, or time an arm"
                " with perf.time",
                pytrace=False,
            )
        progress = partial(self.show, f"{what} in turns")
        return duet(first, second, clear=lambda _: True, budget_s=0.0, progress=progress)
