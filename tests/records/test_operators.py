"""Which operator accounts for a change: planted ones are named, in profiles of real steps."""

from collections.abc import Callable
from dataclasses import replace
from itertools import cycle

import msgspec
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sabotage import environments as env
from sabotage.environments import batches
from sabotage.speed import arm
from torch import nn

from perfsuite.devices.cpu import Cpu
from perfsuite.measuring.profiling import STEPS, profile
from perfsuite.records.operators import TOP, Operator, Profile, explain, profile_of
from perfsuite.training.workload import Arm

CPU = torch.device("cpu")


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
    other = replace_clock(of(conv=0.01))
    assert explain(of(conv=0.01), other) == [
        "operators were timed by the cpu before and the device now"
    ]


def replace_clock(given_profile: Profile) -> Profile:
    return Profile(
        clock="device",
        operators=given_profile.operators,
        rest_s=given_profile.rest_s,
        outside_s=0,
        casts=0,
        layouts=0,
    )


@given(st.dictionaries(st.text(min_size=1), st.floats(0, 1), max_size=60))
def test_a_profile_is_small_and_loses_no_time(seconds: dict[str, float]) -> None:
    found = {name: Operator(self_s=s, calls=1) for name, s in seconds.items()}
    kept = profile_of(found, step_s=0.0, clock="cpu")
    assert len(kept.operators) <= TOP
    assert kept.total_s == pytest.approx(sum(seconds.values()))
    least = min((each.self_s for each in kept.operators.values()), default=0.0)
    assert all(s <= least for name, s in seconds.items() if name not in kept.operators)


def test_a_profile_is_of_one_step() -> None:
    found = profile(arm(CPU), Cpu())
    assert found.clock == "cpu"
    convolutions = found.operators["aten::mkldnn_convolution"]
    assert convolutions.calls == 2
    assert 0 < convolutions.self_s < found.total_s
    assert 0 < found.outside_s < found.total_s
    assert STEPS > 1


def in_channels_last(model: Callable[[], nn.Module]) -> Arm:
    healthy = arm(CPU, model)
    order = cycle([(x.to(memory_format=torch.channels_last), y) for x, y in batches(CPU, 0, 8)])
    return replace(healthy, order=order)


def test_a_slow_operator_is_named_in_a_real_profile() -> None:
    before = profile(arm(CPU), Cpu())
    name = "aten::mkldnn_convolution"
    slower = msgspec.structs.replace(before.operators[name], self_s=before.total_s)
    after = msgspec.structs.replace(before, operators={**before.operators, name: slower})
    assert explain(before, after)[1].startswith(f"{name}: ")


def test_a_lost_memory_format_is_named() -> None:
    before, after = (
        profile(in_channels_last(model), Cpu())
        for model in (env.channels_last, env.channels_last_lost)
    )
    lines = explain(before, after)
    assert any(line.startswith("copies to another memory format: ") for line in lines)


def test_healthy_twins_have_no_copies_to_tell() -> None:
    before, after = (profile(in_channels_last(env.channels_last), Cpu()) for _ in range(2))
    assert "copies" not in "".join(explain(before, after))
