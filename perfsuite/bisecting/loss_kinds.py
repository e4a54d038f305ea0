"""Where a loss becomes another kind of number, such as one that is not finite: exact, as counts.

From a finite loss to one that is not, and from or to 0, there is no ratio that could be searched.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import ne

from perfsuite.bisecting.compared_figures import WITH_RATIO
from perfsuite.bisecting.count_reader import SPENT, CountReader
from perfsuite.bisecting.rounds import BisectionError, Rounds
from perfsuite.judging.count_search import exact_changes
from perfsuite.records.wording import short_name


@dataclass(kw_only=True)
class KindsFound:
    """What a search for other kinds found.

    Attributes:
        figure: the loss that is of another kind at both ends; empty if none is.
        steps: of the row, that may change what the benchmark runs.
        changes: where, as (first, last) of the row's steps, and what changes there.
        notes: what else there is to say, a line each.
    """

    figure: str = ""
    steps: Sequence[int] = ()
    changes: list[tuple[int, int, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def search_kinds(rounds: Rounds, key: str, asked: str | None, deadline_s: float) -> KindsFound:
    """Search for where a loss became another kind of number, if one did: `asked`, or the first.

    Raises BisectionError where nothing can be searched: no step is left, or `asked` is of one kind
    that has no ratio.
    """
    found, n = KindsFound(), len(rounds.row.steps)
    bad = rounds.count(key, n)
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
    _find(CountReader(rounds=rounds, key=key, deadline_s=deadline_s, notes=found.notes), found)
    if not found.steps:
        raise BisectionError(
            f"{short_name(key)}: {found.figure} goes {' -> '.join(ends[found.figure])}, but no"
            f" {rounds.row.noun} between touches what is imported"
        )
    return found


def _find(reader: CountReader, found: KindsFound) -> None:
    def read(place: int) -> str | None:
        count = reader.at(found.steps, place)
        return None if count is None else count.kinds.get(found.figure)

    for found.steps in reader.rows():
        found.changes = [
            (found.steps[first - 1], found.steps[last - 1], f"{read(first - 1)} -> {read(last)}")
            for first, last in exact_changes(read, len(found.steps), ne)
        ]
    if reader.late:
        found.notes.append(SPENT)
