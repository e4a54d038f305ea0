"""A fake clock shows what lies inside the timed region: the steps, and nothing else."""

from collections.abc import Callable

import pytest
from fakes import FakeArm, FakeTime
from torch import Tensor

from perfsuite.devices.cards import Card, Spell
from perfsuite.devices.cpu import Cpu
from perfsuite.devices.simulated import Simulated
from perfsuite.measuring.timing import time_block, warm_up


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


def test_data_is_outside_the_timed_region(time: FakeTime) -> None:
    block = time_block(FakeArm(time), time.clock(), steps=4)
    assert (block.wall_s, block.device_s, block.steps) == (1.0, 1.0, 4)


def test_a_block_is_divided_by_its_steps_once(time: FakeTime) -> None:
    turn = FakeArm(time, lambda _: 0.5).turn(7)
    blocks = [turn() for _ in range(3)]
    assert [block.step_s for block in blocks] == pytest.approx([0.5, 0.5, 0.5])


def test_warm_up_lasts_until_steady_and_is_not_timed(time: FakeTime) -> None:
    # Cold steps cost more and more slowly less, as kernels are chosen and caches fill.
    arm = FakeArm(time, lambda step: 1.0 + 9.0 * max(0, 10 - step))
    warmed = warm_up(arm, time.clock(), steps=2)
    assert warmed.steady
    assert arm.restored == 1
    timed = [arm.turn(2)() for _ in range(2)]
    assert [block.wall_s for block in timed] == [1.0, 1.0]


def test_what_the_first_step_makes_is_not_made_anew_in_a_block_that_is_timed(
    time: FakeTime,
) -> None:
    made = False

    class Lazy(FakeArm):
        """Takes long for the first step, and again once what that made is gone."""

        def step(self, batch: Tensor) -> Tensor:
            nonlocal made
            self.time.launch(0.0 if made else 9.0)
            made = True
            return super().step(batch)

        def snapshot(self) -> Callable[[], None]:
            then = made

            def restore() -> None:
                nonlocal made
                made = then

            return restore

    arm = Lazy(time)
    warm_up(arm, time.clock(), steps=2)
    assert [arm.turn(2)().wall_s for _ in range(2)] == [1.0, 1.0]


def test_warm_up_gives_up_on_an_arm_that_never_settles(time: FakeTime) -> None:
    arm = FakeArm(time, lambda step: 1.0 + step)
    warmed = warm_up(arm, time.clock(), steps=1, max_blocks=8)
    assert not warmed.steady
    assert len(warmed.blocks) == 8
    assert arm.restored == 1


def test_a_block_is_marked_that_was_throttled_in_any_of_its_time() -> None:
    spell = Spell(start_s=2005.0, end_s=2006.0, speed=0.5)
    turn = FakeArm(FakeTime(held_back=(spell,))).watched(steps=4)
    blocks = [turn() for _ in range(3)]
    assert [block.throttled for block in blocks] == [(), ("simulated slowdown",), ()]
    assert [block.wall_s for block in blocks] == [1.0, 1.25, 1.0]
    assert [block.state is not None and block.state.sm_mhz for block in blocks] == [1980] * 3


@pytest.mark.parametrize(("launch_s", "kernel_s", "share"), [(0.02, 0.01, 1.0), (0.01, 0.04, 0.25)])
def test_a_block_tells_until_when_the_host_launched(
    launch_s: float, kernel_s: float, share: float
) -> None:
    """Device seconds hold every gap, so that they are wall seconds whoever is the limit."""
    arm = FakeArm(Simulated(Card(launch_s=launch_s)), lambda _: kernel_s)
    block = arm.turn(100)()
    assert block.device_s is not None
    assert block.host_s is not None
    assert block.device_s / block.wall_s == pytest.approx(1.0, abs=0.01)
    assert block.host_s / block.wall_s == pytest.approx(share, abs=0.01)


def test_on_a_cpu_there_is_no_host_beside_the_device() -> None:
    assert FakeArm(FakeTime()).turn()().host_s is not None
    assert time_block(FakeArm(FakeTime()), Cpu().clock(), steps=1).host_s is None
