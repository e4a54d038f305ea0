"""Cards that can be simulated: estimates of what real ones do, and of what befalls them.

What an H100 does to the tutorial's network is estimated from its arithmetic and its memory; no run
has confirmed it. Nothing here imports torch.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from perfsuite.judging.ceilings import Ceilings


@dataclass(frozen=True, slots=True, kw_only=True)
class Spell:
    """A stretch of simulated time in which the device is slower, once or again and again."""

    start_s: float
    end_s: float
    speed: float  # what is left of the device's speed, above 0 and at most 1
    every_s: float = math.inf  # from one beginning to the next

    def at(self, at_s: float) -> bool:
        """Tell whether it lasts at a time."""
        since_s = at_s - self.start_s
        return since_s >= 0 and since_s % self.every_s < self.end_s - self.start_s

    def within(self, start_s: float, end_s: float) -> bool:
        """Tell whether it lasts at any time between two."""
        ended = 0 if math.isinf(self.every_s) else (start_s - self.end_s) // self.every_s + 1
        shift_s = max(0, ended) * self.every_s if ended else 0.0
        return self.start_s + shift_s < end_s and self.end_s + shift_s > start_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """An accelerator, and the host that drives it."""

    name: str = "Simulated"
    memory_bytes: int = 2**30
    launch_s: float = 5e-6  # what a launch costs the host
    queue_depth: int = 1024  # launches that the host may be ahead of the device
    full_mhz: int = 1980  # speed is proportional to the clock
    idle_mhz: int = 345
    ramp_s: float = 0.0  # from idle to full; the clock is idle again after as long without work
    power_cap: float = 1.0  # the share of the clock that the power limit leaves
    held_back: tuple[Spell, ...] = ()  # throttling
    neighbours: tuple[Spell, ...] = ()  # another process uses the device
    within: float = 0.0  # scatter of kernels: the standard deviation of their time's logarithm
    between: float = 0.0  # scatter of processes, likewise
    seed: int = 0
    # What follows says how long the operators of a step take that the CPU computes; without
    # rates none takes time.
    flop_per_s: Mapping[str, float] = field(default_factory=dict)  # by precision; others it lacks
    bytes_per_s: float = math.inf
    least_kernel_s: float = 0.0
    flop_scale: int = 1  # how many of the card's operations one of the CPU's stands for
    bytes_scale: int = 1

    def mhz(self, at_s: float, *, active_since_s: float, free_s: float) -> float:
        """Return its clock at a time, active since one and without work from another on."""
        loaded_mhz = self.full_mhz * self.power_cap
        if self.ramp_s == 0:
            return loaded_mhz
        if at_s - free_s > self.ramp_s:
            return self.idle_mhz
        risen = min(1.0, (at_s - active_since_s) / self.ramp_s)
        return self.idle_mhz + risen * (loaded_mhz - self.idle_mhz)

    def left_at(self, at_s: float) -> float:
        """Return what spells leave of its speed at a time."""
        left = 1.0
        for each in (*self.held_back, *self.neighbours):
            if each.at(at_s):
                left *= each.speed
        return left

    def ceilings(self) -> Ceilings:
        """Return the most that it does of what the CPU computes for it; nothing without rates."""
        if not self.flop_per_s:
            return Ceilings()
        rates = {name: rate / self.flop_scale for name, rate in self.flop_per_s.items()}
        return Ceilings(
            products=rates,
            convolutions=rates,
            bytes_per_s=self.bytes_per_s / self.bytes_scale,
            launch_s=self.launch_s,
        )


# The CPU computes a network of an eighth of the width, and batches of an eighth of the length.
# A launch is an operator's, with all that Python and autograd do for it.
_H100 = Card(
    name="NVIDIA H100 80GB HBM3",
    memory_bytes=80 * 2**30,
    launch_s=19e-6,
    ramp_s=0.2e-3,
    within=0.01,
    between=0.003,
    flop_per_s={"fp32": 55e12, "tf32": 190e12, "fp16": 450e12, "bf16": 450e12},
    bytes_per_s=3.0e12,
    least_kernel_s=2e-6,
    flop_scale=8**3,
    bytes_scale=8**2,
)
_T4 = replace(
    _H100,
    name="NVIDIA Tesla T4",
    memory_bytes=15 * 2**30,
    full_mhz=1590,
    idle_mhz=300,
    flop_per_s={"fp32": 6e12, "fp16": 25e12},
    bytes_per_s=0.24e12,
)
CARDS = {
    "h100": _H100,
    "h100-throttled": replace(
        _H100, held_back=(Spell(start_s=0.0, end_s=0.5, speed=0.6, every_s=1.5),)
    ),
    "h100-capped": replace(_H100, power_cap=0.8),
    "h100-shared": replace(
        _H100, neighbours=(Spell(start_s=0.0, end_s=0.2, speed=0.5, every_s=1.0),)
    ),
    "t4": _T4,
}
"""By the name that `--perf-device simulated:NAME` takes."""
