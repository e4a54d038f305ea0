"""Where along a row of versions changes what is exact, such as counts: bisection without noise."""

from collections.abc import Callable
from typing import TypeVar

from perfsuite.judging.counts import Ledger, changes

Exact = TypeVar("Exact")


def counted_changes(read: Callable[[int], Ledger | None], n: int) -> list[tuple[int, int]]:
    """Return where counts differ; see `exact_changes`."""
    return exact_changes(read, n, changes)


def exact_changes(
    read: Callable[[int], Exact | None], n: int, differ: Callable[[Exact, Exact], object]
) -> list[tuple[int, int]]:
    """Return where versions differ, as steps (first, last) that no version tells apart.

    `read` returns what is exact of a version, None where that cannot be had. Version 0 is before
    the first step and version n after the last; both must have it. Between two versions that agree
    nothing is looked for.
    """
    found, stretches = [], [(0, n)]
    while stretches:
        first, last = stretches.pop()
        before, after = read(first), read(last)
        if before is None or after is None or not differ(before, after):
            continue
        middle = (first + last) // 2
        nearest = sorted(range(first + 1, last), key=lambda at: abs(at - middle))
        between = next((at for at in nearest if read(at) is not None), None)
        if between is None:
            found.append((first + 1, last))
        else:
            stretches += [(first, between), (between, last)]
    return sorted(found)
