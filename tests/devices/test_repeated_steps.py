"""Like steps on a simulated card are computed a few times, and take as long as if all were."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from perfsuite.devices.cards import CARDS
from perfsuite.devices.choice import choose_device
from perfsuite.devices.device import HOST
from perfsuite.devices.simulated import Simulated
from perfsuite.measuring.kernels import kernels_of
from perfsuite.measuring.profiling import profile
from perfsuite.measuring.timing import time_block
from perfsuite.training.arm import Arm
from perfsuite.training.batches import endless

SAME = replace(CARDS["h100"], within=0.0)


@pytest.fixture(autouse=True)
def real_devices() -> Iterator[None]:
    yield
    choose_device("cpu")


class CountedStep:
    """A step that counts how often it is computed."""

    def __init__(self, step: Callable[[Tensor], Tensor] | None = None) -> None:
        self.step, self.computed = step or (lambda batch: (batch @ batch).sum()), 0

    def __call__(self, batch: Tensor) -> Tensor:
        self.computed += 1
        return self.step(batch)

    def arm(self, samples: int = 32) -> Arm:
        return Arm(step=self, batches=endless([torch.ones(samples, samples)]), device=HOST)


def test_steps_that_are_repeated_take_as_long_as_if_they_were_computed() -> None:
    def blocks(device: Simulated) -> tuple[list[Any], int]:
        steps = CountedStep()
        arm = steps.arm()
        timed = [time_block(arm, device.clock(), 5) for _ in range(4)]
        told = [kernels_of(arm, device), profile(arm, device)]
        return [*timed, *told], steps.computed

    repeating, computing = Simulated(SAME), Simulated(SAME)
    computing.repeated = lambda step: step  # type: ignore[method-assign]  # for comparison
    found, few = blocks(repeating)
    wanted, all_of_them = blocks(computing)
    assert found == wanted
    assert (few, all_of_them) == (2 + 1 + 1, 20 + 5 * 4 + 5 * 4)


def test_a_step_that_does_something_else_by_now_is_found_out() -> None:
    steps, device = CountedStep(), Simulated(SAME)
    arm = steps.arm()
    first = time_block(arm, device.clock(), 10)  # 2 computed, 8 repeated
    steps.step = lambda batch: (batch @ batch @ batch).sum()
    assert time_block(arm, device.clock(), 10).step_s > 1.2 * first.step_s
    assert steps.computed == 4


def test_a_batch_of_another_shape_is_computed() -> None:
    steps, device = CountedStep(), Simulated(SAME)
    time_block(steps.arm(), device.clock(), 4)
    time_block(steps.arm(samples=64), device.clock(), 1)
    assert steps.computed == 3


def test_what_the_host_does_and_waits_for_is_repeated_too() -> None:
    device = Simulated(SAME)

    def slow(batch: Tensor) -> Tensor:
        total = (batch @ batch).sum()
        total.item()
        device.host(1.0)
        return total

    steps = CountedStep(slow)
    block = time_block(steps.arm(), device.clock(), 8)
    assert block.step_s == pytest.approx(1.0, rel=1e-3)
    assert steps.computed == 2


def test_a_step_of_which_nothing_can_be_kept_is_computed() -> None:
    computed = []

    class Bare:
        __slots__ = ()

        def __call__(self, batch: Tensor) -> Tensor:
            computed.append(1)
            return batch.sum()

    arm = Arm(step=Bare(), batches=endless([torch.ones(3)]), device=HOST)
    time_block(arm, Simulated(SAME).clock(), 5)
    assert len(computed) == 5


def test_a_step_that_raises_leaves_nothing_charged() -> None:
    device = Simulated(SAME)

    def failing(_: Tensor) -> Tensor:
        raise RuntimeError("of its own")

    with pytest.raises(RuntimeError, match="of its own"):
        time_block(CountedStep(failing).arm(), device.clock(), 1)
    at_s = device.now_s
    torch.ones(3).add(1)
    assert device.now_s == at_s


def test_a_region_that_nobody_ended_is_ended_with_its_benchmark() -> None:
    device = Simulated(SAME)
    device.clock().start()
    device.clock().start()
    device.end_regions()
    at_s = device.now_s
    torch.ones(3).add(1)
    assert device.now_s == at_s
