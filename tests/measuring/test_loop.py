"""A loop that is told of its steps is timed in blocks, and says so if it ends too soon."""

import pytest
from fakes import FakeTime

from perfsuite.measuring.loop import Loop
from perfsuite.measuring.turns import Alone
from perfsuite.training.batches import TrainingError


def run(loop: Loop, time: FakeTime, steps: int) -> None:
    for index in range(steps):
        time.launch(1.0 + index)
        loop.step()


def loop_of(time: FakeTime, *, blocks: int) -> Loop:
    alone = Alone(lambda *_: None, budget_s=0.0)
    return Loop(alone, time.clock(), time.sensor(), blocks=blocks, steps=2, skip=3)


def test_blocks_follow_each_other_after_the_skipped_steps() -> None:
    time = FakeTime()
    loop = loop_of(time, blocks=2)
    run(loop, time, 10)
    assert [block.step_s for block in loop.finish()] == [4.5, 6.5]


def test_a_loop_that_ends_too_soon_is_told() -> None:
    time = FakeTime()
    loop = loop_of(time, blocks=3)
    run(loop, time, 8)
    with pytest.raises(TrainingError, match=r"8 steps, in which 2 blocks of 2.*at least 6 after"):
        loop.finish()
