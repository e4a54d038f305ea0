"""What a timing is: a block of steps, with the machine's state around it. Nothing here times."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any

SLOW = 2.0
"""A step that takes so many times as long as the typical one may be a stall."""

MOST_RANKS = 64
"""Of which each one's time of a block is kept; of more it is how their times lie."""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """One reading of the machine; all but the first two fields and the last are the GPU's.

    Attributes:
        slowdown_ns: how long, since the driver was loaded, each cause has lowered its clocks.
        power_w: on average since the reading before, where the GPU counts its energy.
        thermal_violation_ns: how long, since the driver was loaded, heat has slowed the GPU.
    """

    load_1min: float | None = None  # processes that wanted a CPU, on average over the last minute
    cpu_mhz: float | None = None
    sm_mhz: int | None = None
    memory_mhz: int | None = None
    temperature_c: int | None = None
    power_w: float | None = None
    clock_event_reasons: int | None = None  # NVML's bits that say why the clocks are what they are
    slowdown_ns: dict[str, int] | None = None
    thermal_violation_ns: int | None = None
    other_processes: int | None = None  # how many processes besides this one compute on it
    others_cpu: float | None = None  # share of the host's cores that others used meanwhile


@dataclass(frozen=True, slots=True, kw_only=True)
class RanksInShort:
    """How the times of many ranks lie in a block, in seconds a step."""

    ranks: int
    lowest_s: float
    median_s: float
    highest_s: float
    slowest: int  # the rank that took the highest


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """The timing of one block of training steps.

    Attributes:
        device_s: seconds a step between two events on the device, gaps between its kernels
            included; None on a CPU.
        host_s: seconds a step until the host's last launch returned, None on a CPU. Where it is
            close to wall_s, the device may have waited for the host (see `judging.host_bound`).
        typical_s: the median of its steps, the lower of two; None where steps were not told apart.
        slow_s: those of its steps that took more than SLOW times as long as that.
        ranks_s: seconds a step of each rank, of which the block's are the slowest one's; empty
            where there is one.
        in_short: what a run keeps in their place where there are more than MOST_RANKS.
    """

    steps: int
    wall_s: float  # seconds a step by the host's clock, from idle device to idle device
    device_s: float | None = None
    host_s: float | None = None
    state: State | None = None  # of the machine just afterwards, None where it was not read
    throttled: tuple[str, ...] = ()  # why the device was throttled meanwhile; empty if it was not
    typical_s: float | None = None
    slow_s: tuple[float, ...] = ()
    ranks_s: tuple[float, ...] = ()
    in_short: RanksInShort | None = None

    @property
    def step_s(self) -> float:
        """Seconds a step, by the device's clock if it has one."""
        return self.wall_s if self.device_s is None else self.device_s

    def kept(self) -> dict[str, Any]:
        """Return it as a run keeps it, which does not grow with ranks without end."""
        if len(self.ranks_s) <= MOST_RANKS:
            return asdict(self)
        highest_s = max(self.ranks_s)
        found = RanksInShort(
            ranks=len(self.ranks_s),
            lowest_s=min(self.ranks_s),
            median_s=median(self.ranks_s),
            highest_s=highest_s,
            slowest=self.ranks_s.index(highest_s),
        )
        return asdict(replace(self, ranks_s=(), in_short=found))


Turn = Callable[[], Block]
"""Times one block."""


@contextmanager
def resting_collector() -> Iterator[None]:
    """Keep the garbage collector from running inside what is timed."""
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
