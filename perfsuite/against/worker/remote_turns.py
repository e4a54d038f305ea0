"""A benchmark's hands in a comparison of two trees: they time a block when it is their turn."""

from typing import Any

import pytest

from perfsuite.against.messages import Line
from perfsuite.judging.blocks import Block, Turn, resting_collector
from perfsuite.judging.interleaving import Duet
from perfsuite.measuring.bench import Bench
from perfsuite.training.workload import Arm


class OneSide(Bench):
    """A benchmark's hands in a comparison: they time a block when it is their turn."""

    def __init__(self, line: Line, **settings: Any) -> None:
        super().__init__(report=self._tell, **settings)
        self._line = line
        self._explains = False

    def _tell(self, what: str, done: int, of: int) -> None:
        self._line.send("progress", what=what, done=done, of=of)

    def _take(self, what: str, turn: Turn, blocks: int) -> tuple[Block, ...]:  # noqa: ARG002  # the other end decides how many
        taken = []
        self._line.send("ready", what=what)
        with resting_collector():
            while (request := self._line.receive()["kind"]) == "block":
                taken.append(turn())
                self._line.send("block", block=taken[-1])
        self._explains = request == "explain"
        return tuple(taken)

    def profile(self, arm: Arm) -> None:
        """Note where the time of a step goes, if that is what this process is for."""
        if self._explains:
            super().profile(arm)

    def duet(self, *_: Any, **__: Any) -> Duet:
        """Refuse: two arms of one process are held against each other, not against a tree."""
        pytest.fail(
            "perf.duet judges one tree by itself: mark the benchmark one_tree, or time an arm"
            " with perf.time",
            pytrace=False,
        )
