"""Turns of one process: as many as are wanted, and every one is reported."""

from perfsuite.judging.blocks import Block
from perfsuite.measuring.turns import Alone


def test_progress_is_told_of_every_block() -> None:
    told: list[tuple[str, int, int]] = []
    alone = Alone(lambda *progress: told.append(progress), budget_s=0.0)
    taken = 0
    for _ in alone.asked("fp32", 3):
        assert len(told) == taken
        alone.gave(Block(steps=1, wall_s=1.0))
        taken += 1
    assert taken == 3
    assert told == [("timing fp32", done, 3) for done in (1, 2, 3)]
