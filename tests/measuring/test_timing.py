"""A fake clock shows what lies inside the timed region: the steps, and nothing else."""

import gc

import pytest
import torch
from fakes import FakeArm, FakeTime, state

from perfsuite.judging.blocks import State
from perfsuite.measuring.timing import (
    CudaClock,
    HostClock,
    clock_for,
    time_block,
    time_blocks,
    warm_up,
    watched,
)


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


def test_data_is_outside_the_timed_region(time: FakeTime) -> None:
    block = time_block(FakeArm(time), HostClock(time), steps=4)
    assert (block.wall_s, block.device_s, block.steps) == (1.0, None, 4)


def test_a_block_is_divided_by_its_steps_once(time: FakeTime) -> None:
    blocks = time_blocks(FakeArm(time, lambda _: 0.5).turn(7), blocks=3)
    assert [block.step_s for block in blocks] == pytest.approx([0.5, 0.5, 0.5])


def test_warm_up_lasts_until_steady_and_is_not_timed(time: FakeTime) -> None:
    # Cold steps cost more and more slowly less, as kernels are chosen and caches fill.
    arm = FakeArm(time, lambda step: 1.0 + 9.0 * max(0, 10 - step))
    warmed = warm_up(arm, HostClock(time), steps=2)
    assert warmed.steady
    assert arm.restored == 1
    timed = time_blocks(arm.turn(2), blocks=2)
    assert [block.wall_s for block in timed] == [1.0, 1.0]


def test_warm_up_gives_up_on_an_arm_that_never_settles(time: FakeTime) -> None:
    arm = FakeArm(time, lambda step: 1.0 + step)
    warmed = warm_up(arm, HostClock(time), steps=1, max_blocks=8)
    assert not warmed.steady
    assert len(warmed.blocks) == 8
    assert arm.restored == 1


def test_the_garbage_collector_rests_and_is_woken(time: FakeTime) -> None:
    arm = FakeArm(time)
    time_blocks(arm.turn(2), blocks=1)
    assert arm.collector_ran == [False, False]
    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off(time: FakeTime) -> None:
    gc.disable()
    try:
        time_blocks(FakeArm(time).turn(1), blocks=1)
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_the_collector_is_woken_when_a_step_raises(time: FakeTime) -> None:
    def fails(_: int) -> float:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        time_blocks(FakeArm(time, fails).turn(1), blocks=1)
    assert gc.isenabled()


def test_the_state_is_read_around_a_block_and_outside_its_time(time: FakeTime) -> None:
    told = iter([state(clock_event_reasons=0), state(clock_event_reasons=0x40)])
    read_at_s: list[float] = []

    def sensor() -> State:
        read_at_s.append(time.now_s)
        time.now_s += 100.0
        return next(told)

    block = watched(FakeArm(time).turn(steps=4), sensor)()
    assert block.wall_s == 1.0
    assert read_at_s == [0.0, 1104.0]
    assert block.state == state(clock_event_reasons=0x40)
    assert block.throttled == ("hardware thermal slowdown",)


def test_progress_is_told_of_every_block(time: FakeTime) -> None:
    told: list[tuple[int, int]] = []
    arm = FakeArm(time)
    time_blocks(arm.turn(), blocks=3, progress=lambda done, of: told.append((done, of)))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_a_cpu_is_timed_by_the_host() -> None:
    assert isinstance(clock_for(torch.device("cpu")), HostClock)


@pytest.mark.cuda
def test_events_and_wall_clock_agree_on_a_long_kernel() -> None:
    device = torch.device("cuda")
    clock = clock_for(device)
    assert isinstance(clock, CudaClock)
    matrix = torch.randn(4096, 4096, device=device)
    (matrix @ matrix).sum().item()
    clock.start()
    for _ in range(50):
        matrix @ matrix  # queued, never read
    wall_s, device_s = clock.stop()
    assert device_s is not None
    # The queue outlives the loop: a clock that did not synchronise would see the launches only.
    assert device_s > 50 * 4096**3 * 2 / 2e15
    assert device_s <= wall_s <= device_s * 1.2 + 1e-3
