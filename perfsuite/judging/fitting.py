"""The largest batch that fits into a memory, by bisection: pure functions over what a try says."""

from collections.abc import Callable
from dataclasses import dataclass

RESOLUTION = 64
"""The largest that fits and the smallest that does not differ by one part of so many, or by one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What is to be tried: a few steps with batches of so many samples, in a fresh process."""

    precision: str
    samples: int
    limit_bytes: int | None  # that the training may take; None: whatever there is


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """What came of it: the most memory that was taken, or why it was not enough."""

    peak_bytes: int | None
    why_not: str = ""

    @property
    def fits(self) -> bool:
        """Whether the steps were taken."""
        return not self.why_not


Fits = Callable[[Attempt], Tried]
"""Tries in a process of its own, and returns; what fails for another reason, it raises."""


def largest(fits: Callable[[int], bool], first: int, *, most: int) -> int:
    """Return the largest number, up to `most`, that fits, to within RESOLUTION; 0 if none does.

    What fits is taken to fit, too, if it is smaller. Numbers are doubled or halved from `first`
    until one fits and another does not, and what is between them is halved then.
    """
    low, high = 0, most + 1  # fits, or is none; does not fit, or is not asked
    number = min(first, most)
    while low < number < high:
        if fits(number):
            low, number = number, min(2 * number, most)
        else:
            high, number = number, number // 2
        if low and high <= most:
            break
    while low and high <= most and high - low > max(1, low // RESOLUTION):
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
