"""Reads what versions of a row are counted to do, which is exact, until there is no time left."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from perfsuite.bisecting.rounds import Count, Rounds
from perfsuite.bisecting.rows import Row
from perfsuite.records.wording import short_name

SPENT = "the budget is spent; run it again to go on from here"


def steps_that_touch(row: Row, imported: set[str]) -> Sequence[int]:
    """Return the steps of a row that may change what is imported.

    An older perfsuite on both sides does not tell what was imported: nothing is left out.
    """
    every = range(1, len(row.steps) + 1)
    return [step for step in every if not imported or row.may_change(step, imported)]


def version_at(row: Row, steps: Sequence[int], place: int) -> int:
    """Return the version after the first `place` of these steps; the last one is the bad end."""
    return len(row.steps) if place == len(steps) else steps[place - 1] if place else 0


@dataclass(kw_only=True)
class CountReader:
    """Reads the counts of one benchmark.

    Attributes:
        notes: gets a line for each version that cannot be counted.
        late: whether there was no time left for a version.
    """

    rounds: Rounds
    key: str
    deadline_s: float  # on the clock of time.monotonic
    notes: list[str]
    show: Callable[[str, int, int], None] = lambda *_: None
    late: bool = False
    _known: dict[int, Count] = field(default_factory=dict)

    def count(self, version: int) -> Count:
        """Return what a version is counted to do, however late it is."""
        if version not in self._known:
            self.show(f"counting {short_name(self.key)}", len(self._known), self._n)
            self._known[version] = found = self.rounds.count(self.key, version)
            if found.why:
                self.notes.append(f"skipped {self.rounds.told(version)}: {found.why}")
        return self._known[version]

    def at(self, steps: Sequence[int], place: int) -> Count | None:
        """Return what there is at a place of these steps, None if there is no time to count it."""
        version = version_at(self.rounds.row, steps, place)
        if version not in self._known and time.monotonic() > self.deadline_s:
            self.late = True
            return None
        return self.count(version)

    def rows(self) -> Iterator[Sequence[int]]:
        """Yield the steps that may change what both ends import, which have to be counted.

        There are more, and they come again, where a version that was counted since imports more
        than both ends do: a step that was left out may change that.
        """
        steps: Sequence[int] = ()
        for end in (0, self._n):
            self.count(end)
        while True:
            imported = {file for each in self._known.values() for file in each.files}
            if len(more := steps_that_touch(self.rounds.row, imported)) == len(steps):
                return
            yield (steps := more)

    @property
    def _n(self) -> int:
        return len(self.rounds.row.steps)
