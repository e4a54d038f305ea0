"""The turns of a worker of several ranks: what rank 0 is told, all do, and rank 0 answers."""

import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from perfsuite.against.messages import (
    ANSWERS,
    Answer,
    Failed,
    Go,
    Line,
    LineClosedError,
    Ready,
    Request,
    TakeBlock,
    Timed,
)
from perfsuite.against.worker import remote_turns
from perfsuite.against.worker.remote_turns import RemoteTurns, WorkerLine
from perfsuite.devices.torchrun import Seat
from perfsuite.judging.blocks import Block

BothEnds = tuple[WorkerLine, WorkerLine, Line[Answer]]


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> Iterator[BothEnds]:
    """Two ranks' ends, of which rank 0's has to act first, and the coordinator's."""
    told: list[Request | None] = []

    def agreed(value: Request | None) -> Request | None:
        if leading[-1]:
            told.append(value)
        return told[-1]

    leading: list[bool] = []
    ranks = SimpleNamespace(agreed=agreed)
    monkeypatch.setattr(remote_turns, "ranks", lambda: ranks)

    class Rank(WorkerLine):
        def receive(self, timeout_s: float | None = None) -> Request:
            leading.append(self.seat.leads)
            return super().receive(timeout_s)

    theirs, ours = socket.socketpair()
    first = Rank(theirs.detach(), Seat(rank=0, ranks=2, local_ranks=2))
    copy = first._socket.dup().detach()
    second = Rank(copy, Seat(rank=1, ranks=2, local_rank=1, local_ranks=2))
    coordinator = Line(ours.detach(), ANSWERS)
    yield first, second, coordinator
    for end in (first, second, coordinator):
        end.close()


def test_all_ranks_take_the_blocks_that_rank_0_is_asked_for(ends: BothEnds) -> None:
    first, second, coordinator = ends
    turns = [RemoteTurns(line, one_tree=False) for line in (first, second)]
    for request in (TakeBlock(), TakeBlock(), Go(explain=True)):
        coordinator.send(request)
    asked = [each.asked("fp32", 20) for each in turns]
    block = Block(steps=1, wall_s=0.1)
    for index in range(2):
        for rank in range(2):
            assert next(asked[rank]) == index
            turns[rank].gave(block)
    assert [list(each) for each in asked] == [[], []]
    assert [each.explains for each in turns] == [True, True]
    answers = [coordinator.receive(10.0) for _ in range(3)]
    assert answers == [Ready(what="fp32"), Timed(block=block), Timed(block=block)]
    second.fail("ValueError: broken")  # at any time, without rank 0
    assert coordinator.receive(10.0) == Failed(reason="rank 1 of 2: ValueError: broken")


def test_all_ranks_are_told_that_the_coordinator_has_gone(ends: BothEnds) -> None:
    first, second, coordinator = ends
    coordinator.close()
    for line in (first, second):
        with pytest.raises(LineClosedError):
            line.receive()


def test_one_process_says_why_it_failed_without_a_rank() -> None:
    theirs, ours = socket.socketpair()
    line, coordinator = WorkerLine(theirs.detach(), Seat()), Line[Any](ours.detach(), ANSWERS)
    line.fail("ValueError: broken")
    assert coordinator.receive(10.0) == Failed(reason="ValueError: broken")
    line.close()
    coordinator.close()
