"""A fake clock shows what lies inside the timed region: the steps, and nothing else."""

import gc
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from perfsuite.timing import (
    CudaClock,
    Duet,
    HostClock,
    clock_for,
    duet,
    time_block,
    time_blocks,
    warm_up,
)

NOTHING = torch.empty(0)


class FakeTime:
    """Time that passes only where something is said to cost some."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class FakeArm:
    """An arm whose batches, step and restoring cost time of their own."""

    def __init__(
        self, time: FakeTime, step_s: Callable[[int], float] = lambda _: 1.0, name: str = ""
    ) -> None:
        self.time, self.step_s, self.name = time, step_s, name
        self.steps = self.restored = 0
        self.turns: list[str] = []
        self.collector_ran: list[bool] = []

    def take(self, steps: int) -> list[tuple[Tensor, Tensor]]:
        self.time.now_s += 1000.0
        return [(NOTHING, NOTHING)] * steps

    def step(self, images: Tensor, labels: Tensor) -> Tensor:  # noqa: ARG002  # as a step is called
        self.time.now_s += self.step_s(self.steps)
        self.steps += 1
        self.collector_ran.append(gc.isenabled())
        return NOTHING

    def restore(self) -> None:
        self.time.now_s += 5000.0
        self.restored += 1


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


def test_data_is_outside_the_timed_region(time: FakeTime) -> None:
    block = time_block(FakeArm(time), HostClock(time), steps=4)
    assert (block.wall_s, block.device_s, block.steps) == (1.0, None, 4)


def test_a_block_is_divided_by_its_steps_once(time: FakeTime) -> None:
    blocks = time_blocks(FakeArm(time, lambda _: 0.5), HostClock(time), blocks=3, steps=7)
    assert [block.step_s for block in blocks] == pytest.approx([0.5, 0.5, 0.5])


def test_warm_up_lasts_until_steady_and_is_not_timed(time: FakeTime) -> None:
    # Cold steps cost more and more slowly less, as kernels are chosen and caches fill.
    arm = FakeArm(time, lambda step: 1.0 + 9.0 * max(0, 10 - step))
    warmed = warm_up(arm, HostClock(time), steps=2)
    assert warmed.steady
    assert arm.restored == 1
    timed = time_blocks(arm, HostClock(time), blocks=2, steps=2)
    assert [block.wall_s for block in timed] == [1.0, 1.0]


def test_warm_up_gives_up_on_an_arm_that_never_settles(time: FakeTime) -> None:
    arm = FakeArm(time, lambda step: 1.0 + step)
    warmed = warm_up(arm, HostClock(time), steps=1, max_blocks=8)
    assert not warmed.steady
    assert len(warmed.blocks) == 8
    assert arm.restored == 1


def test_the_garbage_collector_rests_and_is_woken(time: FakeTime) -> None:
    arm = FakeArm(time)
    time_blocks(arm, HostClock(time), blocks=1, steps=2)
    assert arm.collector_ran == [False, False]
    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off(time: FakeTime) -> None:
    gc.disable()
    try:
        time_blocks(FakeArm(time), HostClock(time), blocks=1, steps=1)
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_the_collector_is_woken_when_a_step_raises(time: FakeTime) -> None:
    def fails(_: int) -> float:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        time_blocks(FakeArm(time, fails), HostClock(time), blocks=1, steps=1)
    assert gc.isenabled()


def test_arms_take_turns(time: FakeTime) -> None:
    timed = duet(FakeArm(time), FakeArm(time), HostClock(time), quads=3, steps=1)
    assert timed.order == "ABBABAABABBA"


def test_a_steady_drift_of_the_machine_cancels(time: FakeTime) -> None:
    started = time.now_s

    def drifting(cost_s: float) -> Callable[[int], float]:
        # The machine slows down by 1 % of a step with every step taken by either arm.
        return lambda _: cost_s * (1.0 + 0.01 * (first.steps + second.steps))

    first, second = FakeArm(time), FakeArm(time)
    first.step_s, second.step_s = drifting(1.0), drifting(1.0)
    timed = duet(first, second, HostClock(time), quads=6, steps=2)
    assert timed.quad_times_s("A") == pytest.approx(timed.quad_times_s("B"))
    assert timed.of("A")[0].step_s < timed.of("B")[-1].step_s
    assert started == 0.0


def test_progress_is_told_of_every_block(time: FakeTime) -> None:
    told: list[tuple[int, int]] = []
    duet(
        FakeArm(time),
        FakeArm(time),
        HostClock(time),
        quads=1,
        steps=1,
        progress=lambda done, of: told.append((done, of)),
    )
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_blocks_must_pair_up() -> None:
    with pytest.raises(ValueError, match="zip"):
        Duet(order="ABB", blocks=()).of("A")


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
