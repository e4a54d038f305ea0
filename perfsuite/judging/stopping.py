"""When to stop: sampling until a verdict is clear, without making false alarms likelier."""

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")
Progress = Callable[[int, int], None]
"""Called with how many of how many parts of the work are done."""

LOOKS = (12, 18, 27, 41, 61, 92, 138, 207)
"""After how many observations to check whether the verdict is clear: each half as many more."""


def at_each_look(confidence: float) -> float:
    """Return the confidence that each of LOOKS needs for all of them to hold together.

    To stop as soon as an interval is clear of a threshold is to try several intervals. Each
    gets an equal share of the error (Bonferroni), which is exact enough as far as observations
    are independent.
    """
    return 1 - (1 - confidence) / len(LOOKS)


def sample(
    observe: Callable[[int], T],
    *,
    clear: Callable[[Sequence[T]], bool],
    budget_s: float,
    progress: Progress | None = None,
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
