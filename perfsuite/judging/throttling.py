"""The one rule about what was timed while the device was held back.

What was timed together is set aside together: a block, the four turns of a quad, a pair of
processes. What is left decides. Where more than half is set aside nothing can be concluded:
the figures are then those of everything, and the verdict is INCONCLUSIVE.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Sifted(Generic[T]):
    """Groups of what was timed, in the order in which they were timed.

    Attributes:
        groups: all of them.
        kept: those in which the device was not held back.
    """

    groups: tuple[T, ...]
    kept: tuple[T, ...]

    @property
    def set_aside(self) -> int:
        """How many groups were set aside."""
        return len(self.groups) - len(self.kept)

    @property
    def decides(self) -> bool:
        """Whether enough is left to conclude anything: at least half."""
        return 2 * self.set_aside <= len(self.groups)

    @property
    def used(self) -> tuple[T, ...]:
        """The groups that figures are made from."""
        return self.kept if self.decides else self.groups


def sift(groups: Iterable[T], held_back: Callable[[T], bool]) -> Sifted[T]:
    """Set aside the groups of which `held_back` is true."""
    everything = tuple(groups)
    return Sifted(everything, tuple(each for each in everything if not held_back(each)))
