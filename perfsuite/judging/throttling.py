"""The one rule about what was timed while the device was throttled, as by heat.

What was timed together is set aside together: a block, the four turns of a quad, a pair of
processes. The rest decides. Where more than half is set aside nothing can be concluded: the
figures are then those of everything, and the verdict is INCONCLUSIVE.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Sifted(Generic[T]):
    """All groups in the order in which they were timed, and those that were not throttled."""

    groups: tuple[T, ...]
    kept: tuple[T, ...]

    @property
    def set_aside(self) -> int:
        """How many groups were set aside."""
        return len(self.groups) - len(self.kept)

    @property
    def decides(self) -> bool:
        """Whether enough is left for a conclusion: at least half."""
        return 2 * self.set_aside <= len(self.groups)

    @property
    def used(self) -> tuple[T, ...]:
        """The groups that figures are made from."""
        return self.kept if self.decides else self.groups


def sift(groups: Iterable[T], throttled: Callable[[T], bool]) -> Sifted[T]:
    """Set aside the groups that were throttled."""
    everything = tuple(groups)
    return Sifted(everything, tuple(each for each in everything if not throttled(each)))
