"""Profiles of real steps: they are of one step, and planted changes are named by them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import cycle

import pytest
import torch
from fakes import FakeHostBound
from sabotage import environments as env
from sabotage.environments import batches
from sabotage.speed import arm, regressed
from torch import nn

from perfsuite.devices.cpu import Cpu
from perfsuite.measuring import profiling
from perfsuite.measuring.profiling import STEPS, in_operators, profile
from perfsuite.records.operators import Operator, Profile, explain, profile_of
from perfsuite.training.arm import Arm

pytestmark = pytest.mark.usefixtures("narrow_head")

CPU = torch.device("cpu")


def in_channels_last(model: Callable[[], nn.Module]) -> Arm:
    healthy = arm(CPU, model)
    order = cycle([(x.to(memory_format=torch.channels_last), y) for x, y in batches(CPU, 0, 8)])
    return replace(healthy, batches=order)


@pytest.fixture(scope="module")
def healthy() -> Profile:
    return profile(arm(CPU), Cpu())


@pytest.fixture(scope="module")
def channels_last() -> Profile:
    return profile(in_channels_last(env.channels_last), Cpu())


def test_a_profile_is_of_one_step(healthy: Profile) -> None:
    assert healthy.clock == "cpu"
    convolutions = healthy.operators["aten::mkldnn_convolution"]
    assert convolutions.calls == 2
    assert 0 < convolutions.self_s < healthy.total_s
    assert 0 < healthy.outside_s < healthy.total_s
    assert STEPS > 1


def test_operators_are_summed_as_the_profiler_sums_them() -> None:
    trained = arm(CPU)
    with torch.profiler.profile(activities=Cpu().profiler_activities()) as profiler:
        trained.step(trained.take(1)[0])
    assert profiler.profiler is not None
    found = in_operators(profiler.profiler.kineto_results.events())
    averages = profiler.key_averages()
    assert {each.key: each.count for each in averages} == {
        k: calls for k, (_, calls) in found.items()
    }
    wanted_s = {each.key: each.self_cpu_time_total * 1e-6 for each in averages}
    assert {k: self_s for k, (self_s, _) in found.items()} == pytest.approx(wanted_s, abs=1e-9)


def without_timing(given: Profile) -> Profile:
    """Return a profile by counts alone: a convolution takes 10 ms, and all else 0.01 ms a call."""
    found = {
        name: Operator(
            self_s=each.calls * (1e-2 if "mkldnn_convolution" in name else 1e-5), calls=each.calls
        )
        for name, each in given.operators.items()
    }
    return profile_of(found, step_s=0.0, clock=given.clock)


def test_a_planted_slow_operator_is_named(healthy: Profile) -> None:
    slow = profile(arm(CPU, regressed), Cpu())
    lines = explain(without_timing(healthy), without_timing(slow))
    assert lines[1].startswith("aten::mkldnn_convolution: ")


def test_a_lost_memory_format_is_named(channels_last: Profile) -> None:
    lines = explain(channels_last, profile(in_channels_last(env.channels_last_lost), Cpu()))
    assert any(line.startswith("copies to another memory format: ") for line in lines)


def test_healthy_twins_have_no_copies_to_tell(channels_last: Profile) -> None:
    twin = profile(in_channels_last(env.channels_last), Cpu())
    assert "copies" not in "".join(explain(channels_last, twin))


def test_idle_time_of_a_gpu_is_that_of_steps_that_are_not_profiled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Profiling makes the host slower: the device idles for longer meanwhile."""
    arm = FakeHostBound(launches=10, launch_s=1e-3, kernel_s=6e-4)
    profiler_s, plain = [0.0], arm.step

    @contextmanager
    def profiler(**_: object) -> Iterator[None]:
        profiler_s[0] = 0.1
        yield
        profiler_s[0] = 0.0

    def step(batch: torch.Tensor) -> torch.Tensor:
        arm.time.host(profiler_s[0])
        return plain(batch)

    sums = {"aten::conv": (STEPS * 6e-3, STEPS * 10)}
    monkeypatch.setattr(arm, "step", step)
    monkeypatch.setattr(torch.profiler, "profile", profiler)
    monkeypatch.setattr(profiling, "_launched_by_operators", lambda _: sums)
    found = profile(arm, arm.time)
    assert found.clock == "device"
    assert found.inside_s == pytest.approx(6e-3)
    assert found.outside_s == pytest.approx(4e-3, rel=0.1)
