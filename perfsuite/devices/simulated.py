"""A simulated accelerator: time passes only where something is said to take some.

A host launches kernels into a queue of finite depth, a device works through them, and both have
a clock. Clocks ramp up from idle, the device is held back or shared with neighbours for spells
of time, kernels scatter from one to the next and from one process to the next, and memory runs
out. Everything follows from a `Card` and a number: the same twice. So what a timing, a verdict
or a report does can be tried in milliseconds, on any machine, with the truth known.

A card with rates takes real steps, too: while a clock runs, the CPU computes each operator, and
the card is charged for it (see `charging`). What the CPU itself takes is in no figure.
"""

import gc
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from perfsuite.devices.cards import Card
from perfsuite.devices.charging import Charging
from perfsuite.devices.device import (
    HOST,
    Clock,
    Device,
    Hardware,
    HostWaitError,
    PeakMemory,
    Sensor,
    key_of,
)
from perfsuite.devices.precision import Precision
from perfsuite.devices.repeated_steps import RepeatedSteps
from perfsuite.devices.simulated_sensor import SimulatedSensor
from perfsuite.devices.tape import recorded
from perfsuite.devices.timeline import Timeline
from perfsuite.judging.host_bound import Kernels
from perfsuite.judging.thresholds import SIMULATED_KEY


class Simulated(Timeline, Device):
    """A simulated accelerator, used by the process of some number: see `Card.between`."""

    kind = "simulated"
    workload = "sketch"
    computes_on_host = has_graphs = True
    place = HOST  # what is computed is computed there

    def __init__(self, card: Card | None = None, *, process: int = 0) -> None:
        super().__init__(Card() if card is None else card, process=process)
        self.ceilings = self.card.ceilings()
        self.used_bytes = self._most_bytes = 0
        self._waits_raise = False
        self._charging = Charging(
            self.card, launch=self.launch, read=self.settle, allocate=self.allocate
        )
        self._charged = 0  # how many regions within each other
        self._repeated = RepeatedSteps(self.noted)

    def repeated(self, step: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Return what stands for a step of which nothing but the time is needed."""
        return self._repeated.of(step) if self.card.flop_per_s else step

    def beside_capture(self) -> AbstractContextManager[None]:
        self.mark()  # or plain steps would be repeated, and none captured
        return nullcontext()

    def capture(self, step: Callable[[], Tensor]) -> Callable[[], Tensor]:
        return recorded(step, self.one_launch)

    @property
    def charged(self) -> dict[str, tuple[float, int]] | None:
        if not self.card.flop_per_s:  # kernels are what a test launches, and have no operators
            return None
        return {name: (self.kernel_s[name], calls) for name, calls in self.calls.items()}

    def begin_charging(self) -> None:
        """Let operators take time from now on, if the card has rates; regions nest."""
        if self.card.flop_per_s and not self._charged:
            self._charging.__enter__()  # type: ignore[no-untyped-call]  # torch's
        self._charged += 1

    def end_charging(self) -> None:
        """End what was begun last."""
        self._charged -= 1
        if self.card.flop_per_s and not self._charged:
            self._charging.__exit__(None, None, None)  # type: ignore[no-untyped-call]  # torch's

    def end_regions(self) -> None:
        while self._charged:
            self.end_charging()

    def time_s(self) -> float:
        return self.now_s

    @contextmanager
    def _charges(self) -> Iterator[None]:
        self.begin_charging()
        try:
            yield
        finally:
            self.end_charging()

    def kernels(self, steps: Callable[[], None]) -> Kernels:
        busy_s, launches = self.busy_s, self.launches
        with self._charges():
            steps()
        return Kernels(kernel_s=self.busy_s - busy_s, launches=self.launches - launches)

    def wait(self) -> None:
        """Wait as a step does that reads a value; a HostWaitError within `host_waits_raise`."""
        if self._waits_raise:
            raise HostWaitError("called a synchronizing operation")
        self.synchronize()

    def synchronize(self) -> None:
        if self._waits_raise:
            raise HostWaitError("synchronizes with the device")
        self.settle()

    def hardware(self) -> Hardware:
        name, size = self.card.name, self.card.memory_bytes
        key = SIMULATED_KEY + key_of(f"{name}-x1")
        return Hardware(key=key, kind=self.kind, name=name, count=1, memory_bytes=size)

    def versions(self) -> dict[str, Any]:
        return {"simulated": repr(self.card)}

    def facts(self) -> dict[str, Any]:
        """Return nothing: the host that computes has no influence."""
        return {}

    def why_not(self, precision: Precision) -> str | None:
        able = self.card.flop_per_s
        lacks = able and precision not in able
        return f"{self.card.name}, simulated: it has no such arithmetic" if lacks else None

    def clock(self) -> Clock:
        return SimulatedClock(self)

    def sensor(self) -> Sensor:
        return SimulatedSensor(self)

    @contextmanager
    def host_waits_raise(self) -> Iterator[None]:
        self._waits_raise = True
        try:
            yield
        finally:
            self._waits_raise = False

    def allocate(self, bytes_: int) -> None:
        """Take memory, or give back a negative amount; PyTorch's OutOfMemoryError at its end."""
        if (free := self.card.memory_bytes - self.used_bytes) < bytes_:
            raise torch.OutOfMemoryError(f"tried to allocate {bytes_} bytes; {free} are free")
        self.used_bytes += bytes_
        self._most_bytes = max(self._most_bytes, self.used_bytes)

    def confine(self, limit_bytes: int | None) -> Callable[[], int]:
        before = self._most_bytes = self.used_bytes
        if limit_bytes is not None:
            self.card = replace(self.card, memory_bytes=before + limit_bytes)
        return lambda: self._most_bytes - before

    def growth_bytes(self, warm_up: Callable[[], None], measured: Callable[[], None]) -> int:
        with self._charges():
            warm_up()
            before = self.used_bytes
            measured()
        return self.used_bytes - before

    def peak_memory(self, warm_up: Callable[[], None], measured: Callable[[], None]) -> PeakMemory:
        gc.collect()
        before = self.used_bytes
        with self._charges():
            warm_up()
            self._most_bytes = self.used_bytes
            measured()
        most = self._most_bytes - before
        return PeakMemory(allocated_bytes=most, reserved_bytes=most, alloc_retries=0)


class SimulatedClock(Clock):
    """Host and device seconds of a region of simulated time."""

    def __init__(self, device: Simulated) -> None:
        self._device = device
        self._marks_s = [0.0]
        self._runs = False
        self._launched_s = 0.0

    def start(self) -> None:
        if not self._runs:  # what raised an error has left it running
            self._device.begin_charging()
        self._runs = True
        self._device.synchronize()
        self._marks_s = [self._device.now_s]

    @contextmanager
    def taking(self, step: Callable[[Any], Any]) -> Iterator[Callable[[Any], Any]]:
        try:
            yield self._device.repeated(step)
        except BaseException:
            self._end()
            raise

    def lap(self) -> None:
        self._marks_s.append(self._device.ends_s)

    def _end(self) -> None:
        if self._runs:
            self._device.end_charging()
        self._runs = False

    def stop(self) -> tuple[float, float | None]:
        self._end()
        started_s, end_s = self._marks_s[0], self._device.ends_s
        self._launched_s = self._device.now_s
        self._device.synchronize()
        return self._device.now_s - started_s, end_s - started_s

    def laps_s(self) -> list[float]:
        return [now - then for then, now in pairwise(self._marks_s)]

    def host_s(self) -> float | None:
        return self._launched_s - self._marks_s[0]
