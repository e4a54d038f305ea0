"""The clock and the kernels of an accelerator, on parts of torch that are made up."""

import time
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from perfsuite.devices.accelerator import Accelerator, EventClock
from perfsuite.judging.host_bound import Kernels


class FakeHost:
    """A host's clock: a read and a record take a second each, and a wait for the device ten."""

    def __init__(self) -> None:
        self.now_s, self.reads, self.recorded_s = 0.0, 0, list[float]()
        self.module = SimpleNamespace(Event=self.event)

    def read(self) -> float:
        self.reads += 1
        self.now_s += 1.0
        return self.now_s

    def synchronize(self) -> None:
        self.now_s += 10.0

    def event(self, enable_timing: bool) -> Any:
        assert enable_timing
        return SimpleNamespace(record=self.record, elapsed_time=lambda _: 1e3)

    def record(self) -> None:
        self.now_s += 1.0
        self.recorded_s.append(self.now_s)


@pytest.mark.parametrize("steps", [1, 10])
def test_the_host_is_read_once_more_a_block_and_before_its_last_event(
    steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One reading, about 0.1 microseconds, whatever the steps: a block is 10 ms and more."""
    host = FakeHost()
    monkeypatch.setattr(time, "perf_counter", host.read)
    clock = EventClock(host)  # type: ignore[arg-type]  # as much of one as it needs
    clock.start()
    for _ in range(steps):
        clock.lap()
    wall_s, device_s = clock.stop()
    assert host.reads == 3  # begin, last launch, end
    assert device_s == 1.0
    # From the first read: an event, one a step, and the read itself; then an event, a wait, a read.
    assert clock.host_s() == 1 + steps + 1
    assert wall_s == 1 + steps + 1 + 1 + 10 + 1


def event(kind: str, ns: int, *, named_range: bool = False) -> Any:
    return SimpleNamespace(
        device_type=lambda: SimpleNamespace(name=kind),
        duration_ns=lambda: ns,
        is_user_annotation=lambda: named_range,
    )


KERNELS = [event("CUDA", 2_000), event("CUDA", 3_000)]
NO_KERNELS = [event("CPU", 50_000), event("CUDA", 90_000, named_range=True)]


@pytest.mark.parametrize(
    ("events", "found"),
    [([*KERNELS, *NO_KERNELS], Kernels(kernel_s=5e-6, launches=2)), (NO_KERNELS, None)],
    ids=["kernels", "no permission to profile"],
)
def test_kernels_are_what_ran_on_the_device_and_no_named_range(
    events: list[Any], found: Kernels | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = []

    def profile(activities: Any) -> Any:
        watched.extend(activities)
        results = SimpleNamespace(events=lambda: events)
        return nullcontext(SimpleNamespace(profiler=SimpleNamespace(kineto_results=results)))

    class Gpu(Accelerator):
        kind = "cuda"
        hardware = versions = why_not = sensor = None  # type: ignore[assignment]  # not asked

        def __init__(self) -> None:
            self.waited = 0

        def synchronize(self) -> None:
            self.waited += 1

    monkeypatch.setattr(torch.profiler, "profile", profile)
    gpu, steps = Gpu(), list[str]()
    assert gpu.kernels(lambda: steps.append("taken")) == found
    assert (steps, gpu.waited) == (["taken"], 2)
    # The host's operators are left alone: they would make each launch slower.
    assert watched == [torch.profiler.ProfilerActivity.CUDA]
