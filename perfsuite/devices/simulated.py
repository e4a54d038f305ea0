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
import math
import random
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
from perfsuite.devices.simulated_sensor import SimulatedSensor
from perfsuite.devices.tape import recorded
from perfsuite.judging.host_bound import Kernels
from perfsuite.judging.thresholds import SIMULATED_KEY


class Simulated(Device):
    """A simulated accelerator, used by the process of some number: see `Card.between`."""

    kind = "simulated"
    workload = "tiny"
    computes_on_host = has_graphs = True
    place = HOST  # what is computed is computed there

    def __init__(self, card: Card | None = None, *, process: int = 0) -> None:
        self.card = Card() if card is None else card
        self.ceilings = self.card.ceilings()
        self.now_s = 0.0  # on the host's clock
        self.busy_s = 0.0  # that the device has computed
        self.used_bytes = self._most_bytes = 0
        self._free_s = 0.0  # when the device will have done all its work
        self._active_since_s = 0.0
        self._queue: deque[float] = deque()  # when each launched kernel ends
        self._waits_raise = False
        self._draw = random.Random(f"{self.card.seed} {process}")
        self._pace = math.exp(self._draw.gauss(0.0, self.card.between))
        self._kernel_s: defaultdict[str, float] = defaultdict(float)
        self._calls: Counter[str] = Counter()
        self.launches, self._in_graph, self._charged = 0, False, 0
        self._charging = Charging(
            self.card, launch=self._charge, read=self._settle, allocate=self.allocate
        )

    def host(self, seconds: float) -> None:
        """Let the host compute."""
        self.now_s += seconds

    def launch(self, kernel_s: float) -> None:
        """Let the host launch a kernel that takes so long at full speed."""
        self.launches += 1
        if not self._in_graph:
            self._begin_launch()
        start_s = max(self.now_s, self._free_s)
        if start_s - self._free_s > self.card.ramp_s:
            self._active_since_s = start_s
        scatter = math.exp(self._draw.gauss(0.0, self.card.within))
        taken_s = kernel_s * self._pace * scatter / self._speed(start_s)
        self._free_s = start_s + taken_s
        self.busy_s += taken_s
        if not self._in_graph:
            self._queue.append(self._free_s)

    def _begin_launch(self) -> None:
        self.now_s += self.card.launch_s
        while self._queue and self._queue[0] <= self.now_s:
            self._queue.popleft()
        if len(self._queue) >= self.card.queue_depth:
            self.now_s = self._queue.popleft()

    def capture(self, step: Callable[[], Tensor]) -> Callable[[], Tensor]:
        return recorded(step, self._one_launch)

    @contextmanager
    def _one_launch(self) -> Iterator[None]:
        self._begin_launch()
        self._in_graph = True
        try:
            yield
        finally:
            self._in_graph = False
        self._queue.append(self._free_s)

    def _charge(self, name: str, kernel_s: float) -> None:
        before_s = self.busy_s
        self.launch(kernel_s)
        self._kernel_s[name] += self.busy_s - before_s
        self._calls[name] += 1

    @property
    def charged(self) -> dict[str, tuple[float, int]] | None:
        if not self.card.flop_per_s:  # kernels are what a test launches, and have no operators
            return None
        return {name: (self._kernel_s[name], calls) for name, calls in self._calls.items()}

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
        self._settle()

    def _settle(self) -> None:
        """Wait for all kernels; whoever reads a value is told by `HostReads` where it may not."""
        self.now_s = self.ends_s
        self._queue.clear()

    @property
    def ends_s(self) -> float:
        """When an event is reached that is recorded now."""
        return max(self.now_s, self._free_s)

    def mhz(self, at_s: float) -> float:
        """Return the device's clock at a time."""
        card = self.card
        loaded_mhz: float = card.full_mhz * card.power_cap
        if card.ramp_s == 0:
            return loaded_mhz
        if at_s - self._free_s > card.ramp_s:
            return card.idle_mhz
        risen = min(1.0, (at_s - self._active_since_s) / card.ramp_s)
        return card.idle_mhz + risen * (loaded_mhz - card.idle_mhz)

    def _speed(self, at_s: float) -> float:
        spells = [*self.card.held_back, *self.card.neighbours]
        left = math.prod(each.speed for each in spells if each.at(at_s))
        return left * (self.mhz(at_s) / self.card.full_mhz)

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


class SimulatedClock:
    """Host and device seconds of a region of simulated time."""

    def __init__(self, device: Simulated) -> None:
        self._device = device
        self._marks_s = [0.0]
        self._runs = False
        self._launched_s = 0.0

    def start(self) -> None:
        if not self._runs:  # a step that raised an error has left it running
            self._device.begin_charging()
        self._runs = True
        self._device.synchronize()
        self._marks_s = [self._device.now_s]

    def lap(self) -> None:
        self._marks_s.append(self._device.ends_s)

    def stop(self) -> tuple[float, float | None]:
        if self._runs:
            self._device.end_charging()
        self._runs = False
        started_s, end_s = self._marks_s[0], self._device.ends_s
        self._launched_s = self._device.now_s
        self._device.synchronize()
        return self._device.now_s - started_s, end_s - started_s

    def laps_s(self) -> list[float]:
        return [now - then for then, now in pairwise(self._marks_s)]

    def host_s(self) -> float | None:
        return self._launched_s - self._marks_s[0]
