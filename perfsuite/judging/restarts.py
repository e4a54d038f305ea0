"""Restarts: fresh processes, two at a time, that take turns at timing a block.

Two timings of the same code in one process agree better than timings in two processes: where
memory happens to lie stays as it is for as long as a process lives. So whatever is compared
between processes has the process for its unit of replication. A restart is a pair of them, and
counts as one observation, however many blocks it took.
"""

from collections.abc import Callable, Sequence

from perfsuite.judging.blocks import Block, Turn
from perfsuite.judging.estimates import Estimate, paired_ratio
from perfsuite.judging.interleaving import Duet, quad
from perfsuite.judging.stopping import at_each_look


def starting_order(index: int) -> str:
    """Return which side of restart `index` is started first: "AB" or "BA".

    Whoever starts second, or goes first, may be at an advantage, and no number of samples
    makes that go away; so both alternate with `index`, in all four ways (see `take_turns`).
    """
    return "BA" if index % 2 else "AB"


def take_turns(first: Turn, second: Turn, *, index: int, quads: Callable[[Block], int]) -> Duet:
    """Let two warm processes take turns; return their duet, A for `first`.

    Args:
        first: times a block in the one process.
        second: times a block in the other.
        index: of the restart.
        quads: how many to take, from a block that was timed.
    """
    # They warmed up beside each other, or one after the other; now each takes a block to settle.
    settling = {"A": first, "B": second}
    block, _ = (settling[letter]() for letter in starting_order(index))
    return Duet(tuple(quad(first, second, each + index // 2) for each in range(quads(block))))


def pooled_ratio(ratios: Sequence[float], *, confidence: float) -> Estimate:
    """Return how many times longer B takes than A, from one ratio a restart (`Duet.point`).

    Raises:
        SampleError: there are too few, or one is not finite and positive.
    """
    return paired_ratio(ratios, [1.0] * len(ratios), confidence=at_each_look(confidence))
