"""Ceilings: the fastest of growing sizes, and shares that can be believed."""

from collections.abc import Callable

import pytest

from perfsuite.judging.ceilings import CeilingError, Ceilings, highest_rate

SEEN = Ceilings(
    products={"fp32": 2e12, "bf16": 8e12},
    convolutions={"fp32": 3e12, "bf16": 7e12},
    unmeasured={"fp16 product": "no such kernel"},
)


class Machine:
    """Blocks take the time that its rate at their size gives them, by a clock of its own."""

    def __init__(self, rate: Callable[[int], float]) -> None:
        self.rate, self.now_s = rate, 0.0
        self.blocks: list[int] = []

    def block_s(self, size: int) -> float:
        self.blocks.append(size)
        taken_s = size / self.rate(size)
        self.now_s += taken_s
        return taken_s

    def highest(self, *sizes: int, budget_s: float = 1e3) -> float:
        return highest_rate(self.block_s, float, sizes, budget_s=budget_s, now=lambda: self.now_s)


def test_sizes_grow_until_the_rate_no_longer_does() -> None:
    machine = Machine(lambda size: min(size, 400.0))
    assert machine.highest(*range(100, 2000, 100)) == 400.0
    assert max(machine.blocks) == 600  # two more, in vain


def test_one_slow_size_does_not_hide_a_faster_one() -> None:
    machine = Machine(lambda size: {100: 10.0, 200: 5.0, 300: 20.0}[size])
    assert machine.highest(100, 200, 300) == 20.0


def test_a_size_that_the_budget_does_not_suffice_for_is_not_tried() -> None:
    machine = Machine(float)  # a block takes a second
    assert machine.highest(1, 2, 100, budget_s=20.0) == 2.0
    assert machine.now_s <= 20.0


def test_the_first_size_is_timed_whatever_it_takes() -> None:
    assert Machine(lambda _: 2.0).highest(1000, 2000, budget_s=1.0) == 2.0


def test_of_noisy_blocks_the_fastest_counts() -> None:
    slowed = iter([5.0, 9.0, 10.0, *[1.0] * 1000])
    assert Machine(lambda _: next(slowed)).highest(1, budget_s=1.0) == 10.0


def test_a_block_that_takes_no_time_is_an_error() -> None:
    with pytest.raises(CeilingError, match="took 0"):
        highest_rate(lambda _: 0.0, float, [1], budget_s=1.0)


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
