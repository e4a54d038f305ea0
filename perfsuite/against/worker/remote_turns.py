"""The turns of a worker process: a block is timed whenever the coordinator asks for one."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial

import pytest

from perfsuite.against.messages import (
    REQUESTS,
    Answer,
    Failed,
    Go,
    Line,
    LineClosedError,
    Progress,
    Ready,
    Request,
    TakeBlock,
    Timed,
)
from perfsuite.devices.ranks import ranks
from perfsuite.devices.torchrun import Seat
from perfsuite.judging.blocks import Block, Turn
from perfsuite.judging.interleaving import Duet, duet
from perfsuite.measuring.turns import STRETCH_S


class WorkerLine(Line[Request]):
    """A worker's end: its ranks all receive what rank 0 does, which alone answers."""

    def __init__(self, descriptor: int, at: Seat) -> None:
        super().__init__(descriptor, REQUESTS)
        self.seat = at

    def send(self, message: Request | Answer, *, share: int | None = None) -> None:
        """Send a message, if this is rank 0; raises LineClosedError."""
        if self.seat.leads:
            super().send(message, share=share)

    def receive(self, timeout_s: float | None = None) -> Request:
        """Return the next message; raises TimeoutError, LineClosedError or MessageError."""
        told: Request | None = None
        if self.seat.leads:
            with suppress(LineClosedError):
                told = super().receive(timeout_s)
        told = ranks().agreed(told)
        if told is None:
            raise LineClosedError("the other end has hung up")
        return told

    def fail(self, reason: str) -> None:
        """Tell why this rank failed, without a word with the others: they may wait for it."""
        at = self.seat
        of = f"rank {at.rank} of {at.ranks}: " if at.ranks > 1 else ""
        super().send(Failed(reason=of + reason))


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
