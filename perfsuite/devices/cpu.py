"""The host's own CPU: it computes while its caller waits, and its clock is the host's."""

import ctypes
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

from torch.autograd.profiler import profile, record_function

from perfsuite.devices.device import (
    HOST,
    Clock,
    Device,
    DeviceError,
    Hardware,
    Sensor,
    key_of,
)
from perfsuite.devices.host import cpu_name, read_host, usable_cpus
from perfsuite.devices.precision import Precision
from perfsuite.judging.blocks import State

# Blocks from this size on get pages of their own, which are given back with them: by default that
# size grows, up to 32 MiB, and how much is left between smaller ones is chance.
_MMAP_THRESHOLD, _LARGE_BYTES = -3, 2**17
_MEASURED = "perfsuite: measured"
# By torch's allocator, and by oneDNN, which tells nothing more of it. What it cannot do at all, it
# has no "primitive descriptor" for.
_NO_MEMORY = re.compile(
    "can't allocate memory|not enough memory|bad_alloc"
    "|could not create a (memory|primitive)(?! descriptor)"
)


class Cpu(Device):
    """The CPU that this process runs on."""

    kind = "cpu"
    workload = "tiny"
    profiled_by = "cpu"
    computes_on_host = True
    place = HOST

    def hardware(self) -> Hardware:
        name, count = cpu_name(), len(usable_cpus())
        key = key_of(f"cpu-{name}-x{count}")
        return Hardware(key=key, kind=self.kind, name=name, count=count, memory_bytes=None)

    def versions(self) -> dict[str, Any]:
        return {}

    def why_not(self, precision: Precision) -> str | None:
        return "cpu: TF32 needs an NVIDIA GPU; use fp32" if precision is Precision.tf32 else None

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """Those worth timing; float16 works, but is emulated, 10 to 40 times slower than fp32."""
        return (Precision.fp32, Precision.bf16)

    @property
    def fast_precision(self) -> Precision:
        """The precision that one would train in here: most CPUs gain nothing by another."""
        return Precision.fp32

    def clock(self) -> Clock:
        return HostClock()

    def sensor(self) -> Sensor:
        return HostSensor()

    def synchronize(self) -> None:
        pass  # the caller has waited

    def growth_bytes(self, warm_up: Callable[[], None], measured: Callable[[], None]) -> int:
        """Return bytes allocated less bytes freed while `measured` ran, by torch's profiler.

        It watches the warm-up too, since it does not see memory freed that was allocated earlier.
        """
        with _quiet(), profile(profile_memory=True) as profiled:
            warm_up()
            with record_function(_MEASURED):
                measured()
        # What it recorded, as it is: `function_events` makes a large object of each first.
        events: Any = profiled.kineto_results.events()
        (span,) = (event for event in events if event.name() == _MEASURED)
        return sum(
            event.nbytes()
            for event in events
            if event.name() == "[memory]"
            and event.device_type().name == "CPU"
            and span.start_ns() <= event.start_ns() <= span.end_ns()
        )

    def confine(self, limit_bytes: int | None) -> Callable[[], int]:
        """Limit the addresses that this process may use.

        What is resident cannot be limited by a process itself, and a control group would kill it
        where this lets an allocation fail, which can be told. Read from /proc, so on Linux alone.
        """
        with suppress(AttributeError):  # glibc's, and no other library's
            ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, _LARGE_BYTES)
        before = _address_bytes("VmSize")
        if limit_bytes is not None:
            import resource  # which Windows does not have

            _, hard = resource.getrlimit(resource.RLIMIT_AS)
            resource.setrlimit(resource.RLIMIT_AS, (before + limit_bytes, hard))
        return lambda: _address_bytes("VmPeak") - before

    def ran_out(self, error: BaseException) -> bool:
        return isinstance(error, MemoryError) or _NO_MEMORY.search(str(error)) is not None


def _address_bytes(name: str) -> int:
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError as error:
        raise DeviceError(f"cpu: a process's memory is limited on Linux alone ({error})") from None
    found = re.search(rf"^{name}:\s+(\d+) kB$", status, re.M)
    assert found is not None  # the kernel tells it
    return int(found.group(1)) * 1024


class HostClock(Clock):
    """The host's clock, for a device that computes while its caller waits."""

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now = now
        self._marks_s = [0.0]

    def start(self) -> None:
        self._marks_s = [self._now()]

    def lap(self) -> None:
        self._marks_s.append(self._now())

    def stop(self) -> tuple[float, float | None]:
        return self._now() - self._marks_s[0], None

    def laps_s(self) -> list[float]:
        return [now - then for then, now in pairwise(self._marks_s)]

    def host_s(self) -> float | None:
        return None


class HostSensor:
    """Reads the host; whether a CPU was held back it cannot tell."""

    def read(self) -> State:
        return read_host()

    def blind(self) -> str | None:
        return None

    def held_back(self, before: State, after: State) -> tuple[str, ...]:  # noqa: ARG002  # unknown
        return ()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the profiler from writing to stderr, unless the environment says how loud it is."""
    name = "KINETO_LOG_LEVEL"
    said = name in os.environ
    os.environ.setdefault(name, "99")
    try:
        yield
    finally:
        if not said:
            del os.environ[name]
