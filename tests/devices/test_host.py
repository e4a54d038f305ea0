"""What other processes take of the host's CPUs: the kernel's counters, less our own."""

from collections import namedtuple
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from perfsuite.devices import host
from perfsuite.devices.choice import choose_device
from perfsuite.devices.host import CpuUse, host_facts, read_cpu_use

Times = namedtuple("Times", "user nice system idle iowait irq softirq steal guest guest_nice")
Own = namedtuple("Own", "user system children_user children_system iowait")


def use(at_s: float, busy_s: float, own_s: float) -> CpuUse:
    return CpuUse(at_s=at_s, cpus=2, busy_s=busy_s, own_s=own_s)


@pytest.mark.parametrize(
    ("busy_s", "own_s", "share"),
    [
        (10.0, 10.0, 0.0),  # one core, and it is ours
        (20.0, 20.0, 0.0),  # two threads of ours
        (20.0, 10.0, 0.5),  # a busy loop beside us
        (9.99, 10.0, 0.0),  # the two are counted in different ticks
        (0.0, 0.0, 0.0),
    ],
)
def test_the_share_of_others_is_what_is_busy_and_not_ours(
    busy_s: float, own_s: float, share: float
) -> None:
    before = use(100.0, 1000.0, 50.0)
    assert use(110.0, 1000.0 + busy_s, 50.0 + own_s).others_since(before) == pytest.approx(share)


def test_what_other_ranks_use_is_ours_too() -> None:
    now, before = use(110.0, 1020.0, 60.0), use(100.0, 1000.0, 50.0)
    assert now.others_since(before, beside_s=10.0) == pytest.approx(0.0)


def test_two_readings_too_close_tell_nothing() -> None:
    assert use(100.5, 1.0, 0.0).others_since(use(100.0, 0.0, 0.0)) is None


@pytest.fixture
def counters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the kernel tell of three CPUs, of which we may use the last two, and of a child."""
    of_all = [Times(*[99.0] * 10), Times(1, 2, 3, 50, 60, 4, 5, 6, 1, 2), Times(*[0.0] * 10)]

    def gone() -> None:
        raise psutil.NoSuchProcess(1)

    children = [
        SimpleNamespace(cpu_times=lambda: Own(1, 1, 0, 0, 0)),
        SimpleNamespace(cpu_times=gone),
    ]
    ours = SimpleNamespace(
        cpu_times=lambda: Own(1, 2, 3, 4, 5), children=lambda recursive: children * recursive
    )
    monkeypatch.setattr(psutil, "cpu_times", lambda percpu: of_all * percpu)
    monkeypatch.setattr(psutil, "Process", lambda: ours)
    monkeypatch.setattr(host, "usable_cpus", lambda: [1, 2])


def test_only_cpus_that_we_may_use_are_counted(counters: None) -> None:
    found = read_cpu_use()
    assert found is not None
    # Idle and waiting are not busy; guests are counted as users already; steal is of others.
    assert (found.cpus, found.busy_s, found.own_s) == (2, 1 + 2 + 3 + 4 + 5 + 6, 1 + 2 + 3 + 4 + 2)


@pytest.mark.parametrize("error", [OSError, NotImplementedError, AttributeError])
def test_a_system_that_does_not_tell_says_nothing(
    counters: None, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def unable(percpu: bool) -> Any:
        raise error

    monkeypatch.setattr(psutil, "cpu_times", unable)
    assert read_cpu_use() is None


def test_the_facts_of_this_machine_are_the_same_twice() -> None:
    facts = choose_device("cpu").facts()
    assert facts == host_facts()
    assert facts["CPU"]


def test_the_governor_is_read_where_there_is_one(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "_GOVERNOR", f"{tmp_path}/{{}}")
    assert host_facts()["CPU governor"] is None
    for cpu in host.usable_cpus():
        (tmp_path / str(cpu)).write_text("powersave\n", encoding="utf-8")
    assert host_facts()["CPU governor"] == "powersave"
