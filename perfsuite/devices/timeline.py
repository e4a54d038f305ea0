"""A host that launches kernels into a queue of finite depth, and a device that works through them.

Both have a clock; time passes only where something is said to take some. Nothing here imports
torch.
"""

import math
import random
from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from perfsuite.devices.cards import Card

Acts = list[tuple[Any, tuple[Any, ...]]]
"""What was done to a timeline: functions of it, with what they were called with."""


class Timeline:
    """What a card does, and when, in the process of some number: see `Card.between`."""

    def __init__(self, card: Card, *, process: int = 0) -> None:
        self.card = card
        self.now_s = 0.0  # on the host's clock
        self.busy_s = 0.0  # that the device has computed
        self.launches = 0
        self.kernel_s: defaultdict[str, float] = defaultdict(float)  # by operator
        self.calls: Counter[str] = Counter()
        self._free_s = 0.0  # when the device will have done all its work
        self._active_since_s = 0.0
        self._queue: deque[float] = deque()  # when each launched kernel ends
        self._in_graph = False
        self._draw = random.Random(f"{card.seed} {process}")
        self._pace = math.exp(self._draw.gauss(0.0, card.between))
        self._acts: Acts | None = None  # where what is done is noted

    @contextmanager
    def noted(self) -> Iterator[Acts]:
        """Yield what is done within, to be done again."""
        acts = self._acts = []
        try:
            yield acts
        finally:
            self._acts = None

    def _note(self, act: Any, *called_with: Any) -> None:
        if self._acts is not None:
            self._acts.append((act, called_with))

    def mark(self) -> None:
        """Let what is noted now be like nothing else."""
        self._note(object())

    def host(self, seconds: float) -> None:
        """Let the host compute."""
        self._note(self.host, seconds)
        self.now_s += seconds

    def launch(self, kernel_s: float, name: str = "") -> None:
        """Let the host launch a kernel, of an operator if named; its seconds are at full speed."""
        self._note(self.launch, kernel_s, name)
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
        if name:
            self.kernel_s[name] += taken_s
            self.calls[name] += 1

    def _begin_launch(self) -> None:
        self.now_s += self.card.launch_s
        while self._queue and self._queue[0] <= self.now_s:
            self._queue.popleft()
        if len(self._queue) >= self.card.queue_depth:
            self.now_s = self._queue.popleft()

    @contextmanager
    def one_launch(self) -> Iterator[None]:
        """Launch at once what is launched within."""
        self._begin_graph()
        try:
            yield
        finally:
            self._end_graph()

    def _begin_graph(self) -> None:
        self._note(self._begin_graph)
        self._begin_launch()
        self._in_graph = True

    def _end_graph(self) -> None:
        self._note(self._end_graph)
        self._in_graph = False
        self._queue.append(self._free_s)

    def settle(self) -> None:
        """Let the host wait for all kernels."""
        self._note(self.settle)
        self.now_s = self.ends_s
        self._queue.clear()

    @property
    def ends_s(self) -> float:
        """When an event is reached that is recorded now."""
        return max(self.now_s, self._free_s)

    def mhz(self, at_s: float) -> float:
        """Return the device's clock at a time."""
        return self.card.mhz(at_s, active_since_s=self._active_since_s, free_s=self._free_s)

    def _speed(self, at_s: float) -> float:
        return self.card.left_at(at_s) * (self.mhz(at_s) / self.card.full_mhz)
