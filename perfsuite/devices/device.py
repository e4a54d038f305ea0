"""What a device is to the rest of perfsuite: one protocol, and what most devices share.

A kind of device is one file beside this one and one line in `choice`. Whatever a machine cannot
tell is None.
"""

import platform
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cache
from importlib import metadata
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity

from perfsuite.devices.host import host_facts
from perfsuite.devices.precision import Precision, PrecisionError
from perfsuite.judging.blocks import State
from perfsuite.judging.ceilings import Ceilings
from perfsuite.judging.host_bound import Kernels

HOST = torch.device("cpu")
"""Where values are that nobody has to wait for."""

_PACKAGES = ("perfsuite", "torch", "torchvision", "numpy", "pytest", "pytest-benchmark")


class DeviceError(RuntimeError):
    """A device that was asked for and is not there."""


class UnsupportedError(DeviceError):
    """A device that is there and is not supported: nothing else is measured in its place."""


class HostWaitError(RuntimeError):
    """A step waited for its device; the message says by what, in one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """What baselines are kept by."""

    key: str  # name of the folder that holds its baselines
    kind: str  # of the device, as in `--perf-device`
    name: str  # as the vendor spells it
    count: int  # accelerators that are used, or logical CPUs that this process may use
    memory_bytes: int | None  # of one accelerator; None for a CPU, whose memory has no influence

    def of_ranks(self, nodes: int, local_ranks: int) -> "Hardware":
        """Return what baselines of so many ranks are kept by; itself where there are none."""
        if not local_ranks:
            return self
        return replace(self, key=f"{self.key}-ranks-{nodes}x{local_ranks}")

    def __str__(self) -> str:
        return f"{self.count} x {self.name} ({self.key})"


class Clock(Protocol):
    """Measures one region at a time; the device is idle at both of its ends."""

    def start(self) -> None:
        """Begin the region."""

    def taking(self, step: Callable[[Any], Any]) -> AbstractContextManager[Callable[[Any], Any]]:
        """Enter steps of the region that has begun; yield what is called to take one.

        That is the step itself, but for a simulation, which repeats what it has seen: nothing but
        time may be taken from it.
        """
        return nullcontext(step)

    def lap(self) -> None:
        """Note that a step has ended, without waiting for the device."""

    def stop(self) -> tuple[float, float | None]:
        """End the region; return wall seconds, and device seconds where the device has a clock."""

    def laps_s(self) -> list[float]:
        """Return the seconds of each step of the region that has ended, by the device's clock."""

    def host_s(self) -> float | None:
        """Return the host's seconds in the region that has ended, until its last launch returned.

        None where the host is the device.
        """

    def ranks_s(self) -> tuple[float, ...]:
        """Return the seconds of each rank in the region that has ended; empty where there is one.

        By the device's clock where it has one.
        """
        return ()


class Sensor(Protocol):
    """Reads the machine's state, outside of whatever is timed; it changes nothing."""

    def read(self) -> State:
        """Return the state as it is now."""

    def blind(self) -> str | None:
        """Return why throttling cannot be seen; None if it can, or if nobody would expect it."""

    def held_back(self, before: State, after: State) -> tuple[str, ...]:
        """Return why the device was held back between two readings; empty if it was not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeakMemory:
    """Peaks over some steps, above what was in use before."""

    allocated_bytes: int  # by tensors
    reserved_bytes: int  # by the caching allocator
    alloc_retries: int  # flushes of its cache; if any, the peaks are the memory's limit


class Device(ABC):
    """A device, for whatever differs between devices."""

    kind: ClassVar[str]  # as in `--perf-device`
    # Trained where none is chosen.
    workload: ClassVar[Literal["tutorial", "tiny", "sketch"]] = "tutorial"
    profiled_by: ClassVar[Literal["device", "cpu"]] = "device"  # whose time a profile tells
    computes_on_host: ClassVar[bool] = False  # shares cores and memory with its process
    has_graphs: ClassVar[bool] = False  # so that a step can be captured, and launched at once
    has_cudnn: ClassVar[bool] = False  # which can try its kernels, and take the fastest
    collectives: ClassVar[str] = ""  # what its ranks talk by, as torch.distributed names it
    ceilings: Ceilings | None = None  # the most that it does, where that is known unmeasured
    place: torch.device  # where tensors lie

    @staticmethod
    def started() -> bool:
        """Tell whether this process uses the kind of device in a way that no fork of it can."""
        return False

    @abstractmethod
    def hardware(self) -> Hardware:
        """Return what baselines are kept by."""

    @abstractmethod
    def versions(self) -> dict[str, Any]:
        """Return the versions of what drives it: recorded and compared, never a key."""

    def facts(self) -> dict[str, Any]:
        """Return what decides how fast the machine is, beside its hardware's key, by name."""
        return host_facts()

    @abstractmethod
    def why_not(self, precision: Precision) -> str | None:
        """Return why it cannot do a precision, None if it can."""

    def time_s(self) -> float:
        """Return the time of which budgets are: the host's, unless time is simulated."""
        return time.monotonic()

    def end_regions(self) -> None:  # noqa: B027  # most have nothing to end
        """End the regions of clocks that a benchmark which raised an error has left running."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait until all that was launched is done."""

    @abstractmethod
    def clock(self) -> Clock:
        """Return what measures it."""

    @abstractmethod
    def sensor(self) -> Sensor:
        """Return what reads its state."""

    @abstractmethod
    def growth_bytes(self, warm_up: Callable[[], None], measured: Callable[[], None]) -> int:
        """Call both; return by how much memory in use grew during the second."""

    def peak_memory(
        self,
        warm_up: Callable[[], None],  # noqa: ARG002  # for those that override it
        measured: Callable[[], None],  # noqa: ARG002  # for those that override it
    ) -> PeakMemory | None:
        """Call both; return the peaks during the second, None, uncalled, where none are counted."""
        return None

    def free_cache(self) -> None:  # noqa: B027  # most keep none
        """Give back the memory that is kept of tensors that are gone."""

    def confine(self, limit_bytes: int | None) -> Callable[[], int]:  # noqa: ARG002  # likewise
        """Let this process find no more than so much further memory, from now to its end.

        Returns what tells the most that it has taken since. None is no limit. A DeviceError where
        memory cannot be limited.
        """
        raise DeviceError(f"{self.kind}: the memory of a process cannot be limited")

    def ran_out(self, error: BaseException) -> bool:
        """Tell whether an error says that there was not enough memory."""
        return isinstance(error, torch.OutOfMemoryError)

    def kernels(self, steps: Callable[[], None]) -> Kernels | None:  # noqa: ARG002  # likewise
        """Call it; return what it launched, None, perhaps uncalled, where no kernels are told."""
        return None

    def random_state(self) -> Tensor | None:
        """Return the state of its random numbers, None where they are the host's."""
        return None

    def set_random_state(self, state: Tensor) -> None:
        """Go back to what `random_state` returned."""
        raise NotImplementedError(f"{self.kind} has no random numbers of its own")

    def beside_capture(self) -> AbstractContextManager[None]:
        """Return where the plain steps belong that are taken before one is captured."""
        return nullcontext()

    def capture(self, step: Callable[[], Tensor]) -> Callable[[], Tensor]:  # noqa: ARG002  # likewise
        """Return what launches all at once that `step` launches on the device.

        `step` is called, and nothing of it computed yet. Each result lies where the last one lay.
        A DeviceError where there are no graphs.
        """
        raise DeviceError(f"{self.kind}: it has no graphs; leave out graph=True of the training")

    def host_waits_raise(self) -> AbstractContextManager[None]:
        """Let a wait of the host for the device raise HostWaitError, where it can be seen."""
        return nullcontext()

    @property
    def charged(self) -> dict[str, tuple[float, int]] | None:
        """Seconds and calls of each operator so far; None where `torch.profiler` has to tell."""
        return None

    def profiler_activities(self) -> list[ProfilerActivity]:
        """Return what `torch.profiler` has to watch."""
        return [ProfilerActivity.CPU]

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """The precisions that it can do at a speed worth timing."""
        return tuple(each for each in Precision if self.why_not(each) is None)

    @property
    def fast_precision(self) -> Precision:
        """The precision that one would train in here."""
        return next((each for each in self.precisions if each.is_amp), Precision.fp32)

    def require(self, precision: Precision) -> None:
        """Raise PrecisionError if it cannot do a precision; nothing ever falls back in silence."""
        if (why := self.why_not(precision)) is not None:
            raise PrecisionError(f"{precision} on {why}")

    def software(self) -> dict[str, Any]:
        """Return the versions that an upgrade may change: recorded and compared, never a key."""
        return {
            **{package: _version(package) for package in _PACKAGES},
            "python": platform.python_version(),
            "system": f"{platform.system()} {platform.release()}",
            "cuda": torch.version.cuda,  # of the build, whatever device is used
            **self.versions(),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "threads": torch.get_num_threads(),
        }


def key_of(text: str) -> str:
    """Return a text as the name of a folder."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


@cache
def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
