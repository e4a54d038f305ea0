"""Where along a row of versions counts change: bisection without noise, since counts are exact."""

from collections.abc import Callable

from perfsuite.judging.counts import Ledger, changes

ReadCounts = Callable[[int], Ledger | None]
"""Returns what a version is counted to do, None where it cannot be."""


def counted_changes(read: ReadCounts, n: int) -> list[tuple[int, int]]:
    """Return where counts differ, as steps (first, last) that no version tells apart.

    Version 0 is before the first step and version n after the last; both must have counts. Between
    two versions that agree nothing is looked for.
    """
    found, stretches = [], [(0, n)]
    while stretches:
        first, last = stretches.pop()
        before, after = read(first), read(last)
        if before is None or after is None or not changes(before, after):
            continue
        middle = (first + last) // 2
        nearest = sorted(range(first + 1, last), key=lambda at: abs(at - middle))
        between = next((at for at in nearest if read(at) is not None), None)
        if between is None:
            found.append((first + 1, last))
        else:
            stretches += [(first, between), (between, last)]
    return sorted(found)
