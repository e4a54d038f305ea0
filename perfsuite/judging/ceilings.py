"""Ceilings: the most that a device was seen to do, and a step's share of it. Pure functions.

The share is the model FLOPs utilization, MFU, of Chowdhery et al., PaLM, 2022, appendix B: the
FLOPs of the model's forward and backward pass, what is computed anew for backward not counted,
over what the device could have done in the same time. For that we take what it was seen to do in
this very run, and no vendor's figure.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

SHARE_GATE = "share_of_ceiling"
"""The gate that fails where a share cannot be told, or is above 100 %."""
ABOVE = "above 100%"
"""What is found where it is."""
GROWTH = 1.02
"""A larger size has to be faster by so much to count as one that is."""
PATIENCE = 2
"""Sizes in a row that are no faster, after which no larger one is tried."""
BLOCKS = 2
"""How many blocks of each size are timed."""
TRIES = 3
"""A size is tried where the time that is left holds so many of its calls."""


class CeilingError(ValueError):
    """A share of a ceiling that cannot be told; the message says why in one line."""


class AboveCeilingError(CeilingError):
    """A rate above the ceiling."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceilings:
    """The most that a device was seen to do; what is in none of these was not asked for.

    Attributes:
        products: FLOP/s of a matrix product, by precision.
        convolutions: FLOP/s of a convolution, by precision.
        bytes_per_s: that a copy reads and writes.
        launch_s: seconds of the host for the smallest operator.
        unmeasured: why something could not be measured, by its name, such as "bf16 product".
    """

    products: Mapping[str, float] = field(default_factory=dict)
    convolutions: Mapping[str, float] = field(default_factory=dict)
    bytes_per_s: float | None = None
    launch_s: float | None = None
    unmeasured: Mapping[str, str] = field(default_factory=dict)

    def flop_per_s(self, precision: str) -> float | None:
        """Return the higher one of both rates in a precision; None if it was not asked for.

        Raises:
            CeilingError: one of them could not be measured.
        """
        for kind in ("product", "convolution"):
            name = f"{precision} {kind}"
            if name in self.unmeasured:
                raise CeilingError(f"no ceiling: {name}: {self.unmeasured[name]}")
        found = [
            each[precision] for each in (self.products, self.convolutions) if precision in each
        ]
        return max(found, default=None)

    def share(self, flop_per_s: float, precision: str) -> float | None:
        """Return which share of its ceiling a rate is; None where there is no ceiling.

        Raises:
            CeilingError: a ceiling could not be measured, or the rate lies above it.
        """
        ceiling = self.flop_per_s(precision)
        if ceiling is None:
            return None
        if not 0 < flop_per_s <= ceiling:
            raise AboveCeilingError(
                f"{flop_per_s / 1e12:.4g} TFLOP/s in {precision} is more than the"
                f" {ceiling / 1e12:.4g} of the fastest product and convolution here: its FLOPs are"
                " wrong (`flops` of perfsuite.Training, or as they were counted), or the machine"
                " was busy meanwhile"
            )
        return flop_per_s / ceiling

    def or_higher(self, other: "Ceilings") -> "Ceilings":
        """Return the higher of each of two measurements: both have been seen."""
        unmeasured = self.unmeasured.keys() & other.unmeasured.keys()
        copies = [each for each in (self.bytes_per_s, other.bytes_per_s) if each is not None]
        launches = [each for each in (self.launch_s, other.launch_s) if each is not None]
        return Ceilings(
            products=_higher(self.products, other.products),
            convolutions=_higher(self.convolutions, other.convolutions),
            bytes_per_s=max(copies, default=None),
            launch_s=min(launches, default=None),
            unmeasured={name: other.unmeasured[name] for name in sorted(unmeasured)},
        )


def _higher(one: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    return {name: max(one.get(name, 0.0), other.get(name, 0.0)) for name in {**one, **other}}


def highest_rate(
    block: Callable[[int], tuple[int, float]],
    work: Callable[[int], float],
    sizes: Iterable[int],
    *,
    budget_s: float,
) -> float:
    """Return the most work a second that any block of any size did.

    `block` times a block of a size, and returns how often it did `work` of that size, and in how
    many seconds. Sizes grow until PATIENCE of them in a row are no faster, or what is left of the
    budget does not suffice for the next. Each has BLOCKS, and the fastest one what is left. Only
    blocks are paid for, and not what a size needs before it can be timed.

    Raises:
        CeilingError: a block took no time.
    """
    best, fastest, slower, left_s = 0.0, 0, 0, budget_s

    def rate_of(size: int) -> float:
        nonlocal left_s
        times, taken_s = block(size)
        if not 0 < taken_s < math.inf:
            raise CeilingError(f"a block took {taken_s} s")
        left_s -= taken_s
        return times * work(size) / taken_s

    for size in sizes:
        if best and TRIES * work(size) / best > left_s:
            break
        found = rate_of(size)
        for _ in range(BLOCKS - 1):
            if left_s > 0:
                found = max(found, rate_of(size))
        slower = 0 if found > best * GROWTH else slower + 1
        if found > best:
            best, fastest = found, size
        if slower == PATIENCE:
            break
    while left_s > 0:
        best = max(best, rate_of(fastest))
    return best
