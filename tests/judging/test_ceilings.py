"""Ceilings: the fastest of growing sizes, and shares that can be believed."""

import math
from collections.abc import Callable

import pytest

from perfsuite.judging.ceilings import CeilingError, Ceilings, highest_rate
from perfsuite.measuring.ceiling_search import BLOCK_S, BUDGET_S, PRODUCT_SIZES

SEEN = Ceilings(
    products={"fp32": 2e12, "bf16": 8e12},
    convolutions={"fp32": 3e12, "bf16": 7e12},
    unmeasured={"fp16 product": "no such kernel"},
)


class Computer:
    """Blocks take the time that its rate at their size gives them, and a second at least."""

    def __init__(self, rate: Callable[[int], float], *, block_s: float = 1.0) -> None:
        self.rate, self.block_s, self.timed_s = rate, block_s, 0.0
        self.blocks: list[int] = []

    def block(self, size: int) -> tuple[int, float]:
        self.blocks.append(size)
        once_s = size / self.rate(size)
        times = max(1, math.ceil(self.block_s / once_s))
        self.timed_s += times * once_s
        return times, times * once_s

    def highest(self, *sizes: int, budget_s: float = 100.0) -> float:
        return highest_rate(self.block, float, sizes, budget_s=budget_s)


def test_sizes_grow_until_the_rate_no_longer_does() -> None:
    computer = Computer(lambda size: min(size, 400.0))
    assert computer.highest(*range(100, 2000, 100)) == pytest.approx(400.0)
    assert max(computer.blocks) == 600  # two more, in vain


def test_one_slow_size_does_not_hide_a_faster_one() -> None:
    computer = Computer(lambda size: {100: 10.0, 200: 5.0, 300: 20.0}[size], block_s=0.1)
    assert computer.highest(100, 200, 300, budget_s=500.0) == 20.0


def test_a_size_that_the_budget_does_not_suffice_for_is_not_tried() -> None:
    computer = Computer(float)  # whatever its size, work takes a second
    assert computer.highest(1, 2, 100, budget_s=20.0) == 2.0
    assert 20.0 <= computer.timed_s <= 21.0


def test_the_first_size_is_timed_whatever_it_takes() -> None:
    assert Computer(lambda _: 2.0).highest(1000, 2000, budget_s=1.0) == 2.0


def test_the_fastest_size_has_what_the_others_leave_of_the_budget() -> None:
    computer = Computer({1: 1.0, 2: 4.0, 4: 2.0, 8: 2.0}.__getitem__)
    assert computer.highest(1, 2, 4, 8, budget_s=50.0) == 4.0
    assert computer.blocks[:8] == [1, 1, 2, 2, 4, 4, 8, 8]
    assert set(computer.blocks[8:]) == {2}
    assert len(computer.blocks) > 40


def test_a_fast_gpu_has_its_largest_product_tried() -> None:
    """Of 800 TFLOP/s: that product takes 11 ms, and only so large a one is as fast."""
    computer = Computer(lambda work: 8e14 * (work / (2 * 16384**3)) ** (1 / 3), block_s=BLOCK_S)
    products = [2 * size**3 for size in PRODUCT_SIZES]
    assert computer.highest(*products, budget_s=BUDGET_S) == pytest.approx(8e14)
    assert computer.timed_s < 2 * BUDGET_S


def test_of_noisy_blocks_the_fastest_counts() -> None:
    slowed = iter([5.0, 9.0, 10.0, *[1.0] * 1000])
    assert Computer(lambda _: next(slowed)).highest(1, budget_s=50.0) == pytest.approx(10.0)


def test_a_block_that_takes_no_time_is_an_error() -> None:
    with pytest.raises(CeilingError, match="took 0"):
        highest_rate(lambda _: (1, 0.0), float, [1], budget_s=1.0)


def test_a_share_is_of_the_faster_of_product_and_convolution() -> None:
    assert SEEN.share(1.5e12, "fp32") == 0.5
    assert SEEN.share(4e12, "bf16") == 0.5
    assert SEEN.share(3e12, "fp32") == 1.0
    assert SEEN.share(1e12, "tf32") is None  # nobody asked


@pytest.mark.parametrize("flop_per_s", [3.0001e12, 5.63 * 3e12, float("inf"), float("nan"), 0.0])
def test_a_share_that_cannot_be_is_an_error_and_no_figure(flop_per_s: float) -> None:
    with pytest.raises(CeilingError, match="fp32") as raised:
        SEEN.share(flop_per_s, "fp32")
    assert "%" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_ceiling_that_could_not_be_measured_is_an_error() -> None:
    with pytest.raises(CeilingError, match="no ceiling: fp16 product: no such kernel"):
        SEEN.share(1.0, "fp16")


def test_of_two_measurements_the_higher_counts_and_either_may_have_failed() -> None:
    again = Ceilings(
        products={"fp32": 4e12, "fp16": 5e12},
        convolutions={"fp32": 1e12},
        bytes_per_s=1e9,
        launch_s=2e-6,
    )
    both = SEEN.or_higher(again)
    assert both.products == {"fp32": 4e12, "bf16": 8e12, "fp16": 5e12}
    assert both.convolutions == {"fp32": 3e12, "bf16": 7e12}
    assert (both.bytes_per_s, both.launch_s, both.unmeasured) == (1e9, 2e-6, {})
