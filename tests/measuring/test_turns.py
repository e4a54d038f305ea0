"""Turns of one process: the garbage collector rests meanwhile, and every block is reported."""

import gc

import pytest
from fakes import FakeArm, FakeTime

from perfsuite.measuring.turns import Alone


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


@pytest.fixture
def alone() -> Alone:
    return Alone(lambda *_: None, budget_s=0.0)


def test_the_garbage_collector_rests_and_is_woken(alone: Alone, time: FakeTime) -> None:
    arm = FakeArm(time)
    alone.one("fp32", arm.turn(2), 1)
    assert arm.collector_ran == [False, False]
    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off(alone: Alone, time: FakeTime) -> None:
    gc.disable()
    try:
        alone.one("fp32", FakeArm(time).turn(1), 1)
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_the_collector_is_woken_when_a_step_raises(alone: Alone, time: FakeTime) -> None:
    def fails(_: int) -> float:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        alone.one("fp32", FakeArm(time, fails).turn(1), 1)
    assert gc.isenabled()


def test_progress_is_told_of_every_block(time: FakeTime) -> None:
    told: list[tuple[str, int, int]] = []
    alone = Alone(lambda *progress: told.append(progress), budget_s=0.0)
    assert len(alone.one("fp32", FakeArm(time).turn(), 3)) == 3
    assert told == [("timing fp32", done, 3) for done in (1, 2, 3)]
