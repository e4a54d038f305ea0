"""What PyTorch offers for every accelerator alike; a kind of accelerator adds what is its own."""

import gc
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity

from perfsuite.devices.device import Clock, Device, HostWaitError, PeakMemory
from perfsuite.judging.host_bound import Kernels


class Accelerator(Device):
    """An accelerator with asynchronous streams, events and an allocator of its own.

    It is the current device unless an index is given.
    """

    def __init__(self, index: int | None = None) -> None:
        self.module: Any = torch.get_device_module(self.kind)
        self.place = torch.device(
            self.kind, self.module.current_device() if index is None else index
        )

    def synchronize(self) -> None:
        torch.accelerator.synchronize(self.place)

    def random_state(self) -> Tensor | None:
        state: Tensor = self.module.get_rng_state(self.place)
        return state

    def set_random_state(self, state: Tensor) -> None:
        self.module.set_rng_state(state, self.place)

    def clock(self) -> Clock:
        return EventClock(self)

    def growth_bytes(self, warm_up: Callable[[], None], measured: Callable[[], None]) -> int:
        warm_up()
        gc.collect()
        before = torch.accelerator.memory_allocated(self.place)
        measured()
        gc.collect()
        return torch.accelerator.memory_allocated(self.place) - before

    def free_cache(self) -> None:
        gc.collect()
        torch.accelerator.empty_cache()

    def peak_memory(self, warm_up: Callable[[], None], measured: Callable[[], None]) -> PeakMemory:
        counts, place = torch.accelerator, self.place
        self.free_cache()
        allocated, reserved = counts.memory_allocated(place), counts.memory_reserved(place)
        retries = self._retries()
        warm_up()
        self.synchronize()
        counts.reset_peak_memory_stats(place)
        measured()
        self.synchronize()
        return PeakMemory(
            allocated_bytes=counts.max_memory_allocated(place) - allocated,
            reserved_bytes=counts.max_memory_reserved(place) - reserved,
            alloc_retries=self._retries() - retries,
        )

    def _retries(self) -> int:
        return int(torch.accelerator.memory_stats(self.place).get("num_alloc_retries", 0))

    def kernels(self, steps: Callable[[], None]) -> Kernels | None:
        self.synchronize()
        # The host's own operators are not watched, so that it is slowed down little.
        watched = torch.profiler.profile(activities=[getattr(ProfilerActivity, self.kind.upper())])
        with watched as profiler:
            steps()
            self.synchronize()
        assert profiler.profiler is not None  # it ran
        # A range that somebody named has a time on the device too, which is its kernels'.
        times_ns = [
            event.duration_ns()
            for event in profiler.profiler.kineto_results.events()
            if event.device_type().name == self.kind.upper() and not event.is_user_annotation()
        ]
        if not times_ns:  # without permission to profile, say
            return None
        return Kernels(kernel_s=sum(times_ns) * 1e-9, launches=len(times_ns))

    def profiler_activities(self) -> list[ProfilerActivity]:
        return [ProfilerActivity.CPU, getattr(ProfilerActivity, self.kind.upper())]


_SYNCHRONIZE = {"synchronize", "_cuda_synchronize", "_accelerator_synchronizeDevice"}


@contextmanager
def synchronizing_raises() -> Iterator[None]:
    """Let the synchronisation of a device, a stream or an event raise HostWaitError.

    Its calls into torch are seen, in this thread, as a Python profiler sees them. The callbacks of
    `torch.cuda._gpu_trace` would see them too; but they cannot be switched off again, and slow each
    allocation and each event of whatever this process times later.
    """
    waited: list[str] = []

    def see(_: Any, event: str, called: Any) -> None:
        if event == "c_call" and called.__name__ in _SYNCHRONIZE and (what := _awaited(called)):
            waited.append(f"synchronizes with {what}")
            raise HostWaitError(waited[-1])

    before = sys.getprofile()
    sys.setprofile(see)
    try:
        yield
    finally:
        sys.setprofile(before)
    if waited:  # and the step went on in spite of it
        raise HostWaitError(waited[0])


def _awaited(called: Any) -> str | None:
    """Return what a function that synchronises waits for, None if it is not torch's."""
    if str(called.__module__).startswith("torch."):
        return "the device"
    kinds = {torch.Stream: "a stream", torch.Event: "an event"}
    return next((name for kind, name in kinds.items() if isinstance(called.__self__, kind)), None)


class EventClock(Clock):
    """A pair of events inside a pair of host readings, synchronised at both ends."""

    def __init__(self, device: Accelerator) -> None:
        self._device = device
        self._begin = device.module.Event(enable_timing=True)
        self._end = device.module.Event(enable_timing=True)
        self._steps: list[Any] = []  # events, made once and used again
        self._laps = 0
        self._started_s = self._launched_s = 0.0

    def start(self) -> None:
        self._device.synchronize()
        self._laps = 0
        self._started_s = time.perf_counter()
        self._begin.record()

    def lap(self) -> None:
        if self._laps == len(self._steps):
            self._steps.append(self._device.module.Event(enable_timing=True))
        self._steps[self._laps].record()
        self._laps += 1

    def stop(self) -> tuple[float, float | None]:
        self._launched_s = time.perf_counter()
        self._end.record()
        self._device.synchronize()
        wall_s = time.perf_counter() - self._started_s
        return wall_s, float(self._begin.elapsed_time(self._end)) / 1e3

    def laps_s(self) -> list[float]:
        marks = [self._begin, *self._steps[: self._laps]]
        return [float(then.elapsed_time(now)) / 1e3 for then, now in pairwise(marks)]

    def host_s(self) -> float | None:
        return self._launched_s - self._started_s
