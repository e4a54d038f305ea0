"""The state of the host: what it cannot tell is None, and what is slow to ask is asked seldom."""

from collections.abc import Iterator
from types import SimpleNamespace

import psutil
import pytest

from perfsuite.devices import host
from perfsuite.devices.host import read_host


@pytest.fixture(autouse=True)
def not_read_yet() -> Iterator[None]:
    host._cpu_mhz.cache_clear()
    yield
    host._cpu_mhz.cache_clear()


@pytest.mark.parametrize("query", ["getloadavg", "cpu_freq"])
@pytest.mark.parametrize("error", [OSError, NotImplementedError, AttributeError])
def test_what_the_host_cannot_tell_is_none(
    monkeypatch: pytest.MonkeyPatch, query: str, error: type[Exception]
) -> None:
    def unable() -> None:
        raise error

    monkeypatch.setattr(psutil, query, unable)
    found = read_host()
    assert None in (found.load_1min, found.cpu_mhz)


def test_a_machine_that_knows_no_frequency_says_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "cpu_freq", lambda: None)
    assert read_host().cpu_mhz is None


def test_the_cpus_clock_is_asked_for_once_in_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    times_s = iter([1000.0, 1003.0, 1009.9, 1010.0])
    clocks = iter([SimpleNamespace(current=2000.0), SimpleNamespace(current=3000.0)])
    monkeypatch.setattr(psutil, "cpu_freq", lambda: next(clocks))
    monkeypatch.setattr("time.monotonic", lambda: next(times_s))
    assert [read_host().cpu_mhz for _ in range(4)] == [2000.0, 2000.0, 2000.0, 3000.0]
