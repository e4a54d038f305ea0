"""Which operator accounts for a change, by profiles that are made up."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfsuite.records.operators import (
    TOP,
    Operator,
    Profile,
    explain,
    products_s,
    profile_of,
)


def of(outside: float = 0.0, **seconds: float) -> Profile:
    found = {f"aten::{name}": Operator(self_s=s, calls=1) for name, s in seconds.items()}
    return profile_of(found, step_s=sum(seconds.values()) + outside, clock="cpu")


def one(calls: float, self_s: float) -> Profile:
    found = {"aten::conv": Operator(self_s=self_s, calls=calls)}
    return profile_of(found, step_s=self_s, clock="cpu")


def test_the_operator_that_accounts_for_the_change_is_named_with_its_share() -> None:
    total, *lines = explain(of(conv=0.010, mm=0.005), of(conv=0.020, mm=0.0055))
    assert total == "profiled: 15 ms -> 25.5 ms a step"
    assert lines == ["aten::conv: 10 ms -> 20 ms, 95% of the change"]


def test_what_no_operator_accounts_for_is_not_laid_on_one() -> None:
    """A wait in the host's code, beside an operator that moved a little by chance."""
    lines = explain(of(conv=0.010), of(conv=0.0101, outside=0.002))
    assert lines[1:] == ["outside of operators: 0 ms -> 2 ms, 95% of the change"]


def test_an_operator_that_was_too_small_to_be_kept_is_told_as_that() -> None:
    many = {f"op{n}": 0.001 for n in range(TOP)}
    lines = explain(of(**many), of(**many, conv=0.01))
    assert lines[1] == "aten::conv: not among the 25 largest -> 10 ms, 100% of the change"


def test_a_step_that_became_faster_is_explained_too() -> None:
    lines = explain(of(conv=0.020, mm=0.004), of(conv=0.010, mm=0.005))
    assert lines[1] == "aten::conv: 20 ms -> 10 ms, 111% of the change"


@pytest.mark.parametrize(
    ("ratio", "named"),
    [(1.1, True), (1.2, True), (1.02, False), (1.5, False), (0.9, False), (1.0, False)],
)
def test_a_profile_that_does_not_show_the_change_names_no_operator(
    ratio: float, named: bool
) -> None:
    lines = explain(of(conv=0.010, mm=0.010), of(conv=0.0122, mm=0.010), ratio=ratio)
    assert any("of the change" in line for line in lines) is named
    assert ("no operator is named" in lines[1]) is not named


def test_calls_are_told_where_they_changed() -> None:
    lines = explain(one(14, 0.01), one(28, 0.02))
    assert "10 ms -> 20 ms (called 14 -> 28 times), 100%" in lines[1]


def test_casts_and_copies_to_another_format_are_counted() -> None:
    before = of(conv=0.01)
    names = ("aten::_to_copy", "aten::clone", "void nchwToNhwcKernel<float>")
    found = {name: Operator(self_s=0.0, calls=2) for name in names}
    after = profile_of(found, step_s=0.01, clock="cpu")
    assert explain(before, after)[-2:] == [
        "casts to another dtype: 0 -> 2 a step",
        "copies to another memory format: 0 -> 4 a step",
    ]


def test_no_change_and_other_clocks_are_no_reason() -> None:
    assert len(explain(of(conv=0.01), of(conv=0.01))) == 1
    other = msgspec.structs.replace(of(conv=0.01), clock="device")
    assert explain(of(conv=0.01), other) == [
        "operators were timed by the cpu before and the device now"
    ]


def on_gpu(idle: float, **seconds: float) -> Profile:
    return msgspec.structs.replace(of(idle, **seconds), clock="device")


def test_a_slower_kernel_is_named_under_a_host_bound_step() -> None:
    """Its 5 ms are taken from the device's idle time, and the step is as long as before."""
    before, after = on_gpu(0.010, conv=0.010, mm=0.010), on_gpu(0.005, conv=0.015, mm=0.010)
    assert explain(before, after, ratio=1.25) == [
        "kernels: 20 ms -> 25 ms a step; device idle: 10 ms -> 5 ms",
        "aten::conv: 10 ms -> 15 ms, 100% of the change",
    ]


def test_a_slower_host_is_told_as_idle_time_and_laid_on_no_kernel() -> None:
    before, after = on_gpu(0.010, conv=0.010), on_gpu(0.020, conv=0.0101)
    lines = explain(before, after, ratio=1.5)
    assert lines[0] == "kernels: 10 ms -> 10.1 ms a step; device idle: 10 ms -> 20 ms"
    assert "no operator is named" in lines[1]


@given(st.lists(st.floats(0, 1), max_size=60))
def test_a_profile_is_small_and_loses_no_time(times_s: list[float]) -> None:
    seconds = {f"op{n}": time_s for n, time_s in enumerate(times_s)}
    found = {name: Operator(self_s=s, calls=1) for name, s in seconds.items()}
    kept = profile_of(found, step_s=0.0, clock="cpu")
    assert len(kept.operators) <= TOP
    assert kept.total_s == pytest.approx(sum(seconds.values()))
    least = min((each.self_s for each in kept.operators.values()), default=0.0)
    assert all(s <= least for name, s in seconds.items() if name not in kept.operators)


def test_products_are_told_from_all_else() -> None:
    found = of(mkldnn_convolution=1.0, convolution_backward=2.0, addmm=4.0, add=8.0, copy_=16.0)
    assert products_s(found) == 7.0
