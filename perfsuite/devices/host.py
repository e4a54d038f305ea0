"""The host: its CPUs, and what other processes take of them while we measure."""

import os
import platform
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import psutil

from perfsuite.judging.blocks import State

LEAST_S = 1.0
"""Between two readings; the kernel counts in hundredths of a second."""
_CLOCK_EVERY_S = 10.0  # the CPU's clock is read: psutil asks every core, which takes long on many
_GOVERNOR = "/sys/devices/system/cpu/cpu{}/cpufreq/scaling_governor"
_NOT_BUSY = ("idle", "iowait")
_COUNTED_TWICE = ("guest", "guest_nice")  # as user and nice


def cpu_name() -> str:
    """Return the CPU's name as the vendor spells it, as far as the system knows it."""
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M)
    except OSError:
        found = None
    return found.group(1).strip() if found else platform.processor() or platform.machine()


def usable_cpus() -> list[int]:
    """Return the logical CPUs that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return sorted(affinity(0)) if affinity is not None else list(range(os.cpu_count() or 1))


def host_facts() -> dict[str, Any]:
    """Return what decides how fast the host is; what it does not tell is None."""
    try:
        governor = Path(_GOVERNOR.format(usable_cpus()[0])).read_text(encoding="utf-8").strip()
    except OSError:
        governor = None
    return {"CPU": cpu_name(), "CPU governor": governor}


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuUse:
    """Seconds that the CPUs which we may use have worked, and those of them that were ours."""

    at_s: float
    cpus: int
    busy_s: float
    own_s: float

    def others_since(self, before: "CpuUse", beside_s: float = 0.0) -> float | None:
        """Return the share of our CPUs that others used since a reading; None if it is too new.

        `beside_s` are the seconds of other processes that are ours too, as those of other ranks.
        """
        passed_s = self.at_s - before.at_s
        if passed_s < LEAST_S:
            return None
        others_s = (self.busy_s - before.busy_s) - (self.own_s - before.own_s) - beside_s
        return min(max(others_s / (passed_s * self.cpus), 0.0), 1.0)


def read_cpu_use() -> CpuUse | None:
    """Return what the CPUs have done so far; None where the system does not tell."""
    try:
        of_all = psutil.cpu_times(percpu=True)
        cpus = [of_all[index] for index in usable_cpus()]
        ours = psutil.Process()
        own_s = sum(ours.cpu_times()[:4])  # ours, and that of children that have ended
        for child in ours.children(recursive=True):
            try:
                own_s += sum(child.cpu_times()[:4])
            except psutil.Error:  # it ended meanwhile, and its parent counts it
                continue
    except (OSError, psutil.Error, NotImplementedError, AttributeError, IndexError):
        return None
    # What a hypervisor took for others (steal) is busy, and not ours.
    busy_s = sum(
        seconds
        for cpu in cpus
        for name, seconds in cpu._asdict().items()
        if name not in _NOT_BUSY + _COUNTED_TWICE
    )
    return CpuUse(at_s=time.monotonic(), cpus=len(cpus), busy_s=busy_s, own_s=own_s)


def read_host() -> State:
    """Return the state of the host alone; its clock is that of the last ten seconds."""
    load = _asked(psutil.getloadavg)
    return State(load_1min=None if load is None else load[0], cpu_mhz=_cpu_mhz(_period()))


def _period() -> int:
    return int(time.monotonic() // _CLOCK_EVERY_S)


@lru_cache(maxsize=1)
def _cpu_mhz(_: int) -> float | None:
    frequency = _asked(psutil.cpu_freq)
    return None if frequency is None else float(frequency.current)


def _asked(query: Callable[[], Any]) -> Any:
    try:
        return query()
    except (OSError, NotImplementedError, AttributeError):  # by operating system
        return None
