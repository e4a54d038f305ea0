"""The clock and the kernels of an accelerator, on parts of torch that are made up."""

import time
from types import SimpleNamespace
from typing import Any

import pytest

from perfsuite.devices.accelerator import EventClock


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
