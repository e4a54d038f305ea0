"""Where a loss becomes another kind of number, such as one that is not finite: exact, as counts.

From a finite loss to one that is not, and from or to 0, there is no ratio that could be searched.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import ne

from perfsuite.bisecting.rounds import WITH_RATIO, BisectionError, Rounds
from perfsuite.judging.count_search import exact_changes
from perfsuite.records.wording import short_name


@dataclass(kw_only=True)
class KindsFound:
    """What a search for other kinds found.

    Attributes:
        figure: the loss that is of another kind at both ends; empty if none is.
        changes: where, as (first, last) of the row's steps, and what changes there.
        notes: what else there is to say, a line each.
    """

    figure: str = ""
    changes: list[tuple[int, int, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def search_kinds(
    rounds: Rounds,
    key: str,
    asked: str | None,
    steps_of: Callable[[set[str]], Sequence[int]],
    deadline_s: float,
) -> KindsFound:
    """Search for where a loss became another kind of number, if one did: `asked`, or the first.

    `steps_of` returns the steps that may change what imports these files. Raises BisectionError
    where nothing can be searched: no step is left, or `asked` is of one kind that has no ratio.
    """
    found = KindsFound()
    bad = rounds.count(key, len(rounds.row.steps))
    if not bad.kinds:
        return found
    good = rounds.count(key, 0)
    ends = {
        name: (good.kinds[name], now)
        for name, now in bad.kinds.items()
        if name in good.kinds and asked in (None, name)
    }
    for name, (then, now) in ends.items():
        if then == now != WITH_RATIO:
            found.notes.append(f"{name} is {now} at both ends, which has no ratio")
    changed = [name for name, (then, now) in ends.items() if then != now]
    if not changed:
        if asked is not None and found.notes:
            raise BisectionError(f"{short_name(key)}: {found.notes[0]}")
        return found
    found.figure, *others = changed
    found.notes += [f"{name} becomes another kind of number, too: --figure" for name in others]
    steps = steps_of({*good.files, *bad.files})
    if not steps:
        raise BisectionError(
            f"{short_name(key)}: {found.figure} goes {' -> '.join(ends[found.figure])}, but no"
            f" {rounds.row.noun} between touches what is imported"
        )
    _find(rounds, key, found, steps, ends=ends[found.figure], deadline_s=deadline_s)
    return found


def _find(
    rounds: Rounds,
    key: str,
    found: KindsFound,
    steps: Sequence[int],
    *,
    ends: tuple[str, str],
    deadline_s: float,
) -> None:
    known: dict[int, str | None] = {0: ends[0], len(steps): ends[1]}
    late = False

    def read(place: int) -> str | None:
        nonlocal late
        if place not in known:
            if time.monotonic() > deadline_s:
                late = True
                return None
            count = rounds.count(key, steps[place - 1])
            if count.why:
                found.notes.append(f"skipped {rounds.told(steps[place - 1])}: {count.why}")
            known[place] = count.kinds.get(found.figure)
        return known[place]

    for first, last in exact_changes(read, len(steps), ne):
        told = f"{read(first - 1)} -> {read(last)}"
        found.changes.append((steps[first - 1], steps[last - 1], told))
    if late:
        found.notes.append("the budget is spent; run it again to go on from here")
