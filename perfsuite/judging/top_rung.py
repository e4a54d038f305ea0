"""The top of a ladder: which rung that is, and what is known of its convolutions."""

from collections.abc import Sequence
from dataclasses import dataclass

from perfsuite.judging.gains import SLOWER, LeverTried


@dataclass(frozen=True, slots=True, kw_only=True)
class Convolution:
    """A convolution of a step, or its gradients, timed by itself.

    Attributes:
        shapes: of what it is given, but for biases.
        share_of_ceiling: None where that is not known.
    """

    operator: str
    shapes: list[list[int]]
    flop_per_s: float
    share_of_ceiling: float | None = None


def rungs_kept(tried: Sequence[LeverTried]) -> list[LeverTried]:
    """Return the rungs that a ladder stands on: not those that made the step slower.

    But for mixed precision, the first lever, which stays whatever it does.
    """
    return [
        each
        for number, each in enumerate(tried)
        if each.samples_per_s is not None and (number == 1 or each.word != SLOWER)
    ]
