"""When to stop: sampling until a verdict is clear, without making false alarms likelier."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr

T = TypeVar("T")
ShowCount = Callable[[int, int], None]
"""Called with how many of how many parts of the work are done."""
Show = Callable[[str, int, int], None]
"""Called with what is done, and with how many of how many parts of it are."""

LOOKS = (
    *(9, 11, 13, 16, 19, 22, 27, 32, 39, 46, 56),
    *(67, 80, 96, 116, 139, 166, 200, 240, 288, 346),
)
"""After how many observations to check whether the verdict is clear: each a fifth more."""
_FIRST_SHARE = 0.4
"""The share of the error that the first look spends."""


def at_each_look(confidence: float, n: int) -> float:
    """Return the confidence that n observations need for all looks to hold together at one.

    To stop as soon as an interval is clear of a threshold is to try several intervals. What the
    looks up to each may spend of the error is fixed in advance (Lan and DeMets, Biometrika 70,
    1983); what that leaves for one follows from how estimates at different looks depend on each
    other (Armitage, McPherson and Rowe, J. R. Stat. Soc. A 132, 1969). Between two looks, where
    a budget ends, n has the later one's.
    """
    look = next((index for index, least in enumerate(LOOKS) if n <= least), -1)
    return 1 - 2 * _levels((1 - confidence) / 2)[look]


def _spent(error: float, look: int) -> float:
    """Return how much of the error on one side all looks up to one spend.

    The first spends no less than its signs that agree by chance, or it could never tell; where
    even those are more than the error, as it is of one of many ranks, a later one is the first.
    The others grow with the root of the logarithm, since a budget ends most samplings early.
    """
    begins = first_look(error)
    if look < begins:
        return 0.0
    first = min(max(_FIRST_SHARE * error, 0.5**begins), error)
    passed = math.log(look / begins) / math.log(LOOKS[-1] / begins)
    return first + (error - first) * math.sqrt(passed)


def first_look(error: float) -> int:
    """Return after how many observations their signs may say anything at an error on one side."""
    return next(look for look in LOOKS if 0.5**look <= error)


@cache
def _levels(error: float) -> tuple[float, ...]:
    """Return the error on one side of each look: a random walk must cross them `_spent` often.

    Gauss-Legendre quadrature over where the walk is that no look has stopped, as in Jennison and
    Turnbull, Group Sequential Methods, 2000, section 19.2.
    """
    nodes, weights = np.polynomial.legendre.leggauss(160)
    at, mass = np.zeros(1), np.ones(1)
    n, spent, levels = 0, 0.0, []
    for look in LOOKS:
        step, root = math.sqrt(look - n), math.sqrt(look)
        goal = _spent(error, look) - spent

        def excess(bound: float) -> float:
            return float(mass @ ndtr((at - bound) / step)) - goal  # noqa: B023  # called at once

        # Without an error to spend, a look never ends the walk.
        bound = brentq(excess, -9 * root, 9 * root) if goal > 0 else 9 * root
        levels.append(float(ndtr(-bound / root)))
        half = (bound + 9 * root) / 2
        inside = bound - half + half * nodes
        density = (
            np.exp(-(((inside[:, None] - at) / step) ** 2) / 2) / step / math.sqrt(2 * math.pi)
        )
        at, mass = inside, half * weights * (density @ mass)
        n, spent = look, spent + goal
    return tuple(levels)


def sample(
    observe: Callable[[int], T],
    *,
    clear: Callable[[Sequence[T]], bool],
    budget_s: float,
    progress: ShowCount | None = None,
    now: Callable[[], float] = time.monotonic,
) -> list[T]:
    """Observe until the answer is clear, the budget is spent, or the last look has passed.

    It never ends before the first look. `clear` is asked at each of them, and so has to judge at
    the confidence of `at_each_look`.
    """
    observed: list[T] = []
    deadline_s = now() + budget_s
    for look in LOOKS:
        while len(observed) < look and (look == LOOKS[0] or now() < deadline_s):
            observed.append(observe(len(observed)))
            if progress is not None:
                progress(len(observed), look)
        if now() >= deadline_s or clear(observed):
            break
    return observed


@dataclass
class Pot:
    """Seconds that a suite's benchmarks share: what one leaves, later ones may use.

    So figures that are clear stop first, and the budget goes to those that are not.
    """

    share_s: float  # what each benchmark brings
    left_s: float = 0.0  # what those before it did not use

    def budget_s(self) -> float:
        """Return what the next benchmark may take: its share, and whatever is left."""
        return self.share_s + self.left_s

    def took(self, seconds: float) -> None:
        """Note what a benchmark took; it may have been more than it had, for its first look."""
        self.left_s = max(self.budget_s() - seconds, 0.0)
