"""Counts that change are found at their step, with as few versions read as a bisection takes."""

from perfsuite.judging.count_search import counted_changes
from perfsuite.judging.counts import Ledger


class Versions:
    """Versions whose step casts so often; those that are broken have no counts."""

    def __init__(self, casts: list[int], broken: tuple[int, ...] = ()) -> None:
        self.casts = casts
        self.broken = broken
        self.read: set[int] = set()

    def __call__(self, version: int) -> Ledger | None:
        self.read.add(version)
        if version in self.broken:
            return None
        return Ledger(counts={"forward: cast": self.casts[version]})


def test_every_change_is_found_at_its_step() -> None:
    versions = Versions([1] * 20 + [2] * 30 + [5] * 15)
    assert counted_changes(versions, 64) == [(20, 20), (50, 50)]
    assert len(versions.read) <= 2 + 2 * 6


def test_where_both_ends_agree_nothing_is_looked_for() -> None:
    versions = Versions([1] * 65)
    assert counted_changes(versions, 64) == []
    assert versions.read == {0, 64}


def test_versions_that_cannot_be_counted_end_in_a_range() -> None:
    versions = Versions([1] * 20 + [2] * 45, broken=(18, 19, 20))
    assert counted_changes(versions, 64) == [(18, 21)]
    assert counted_changes(Versions([1, 2]), 1) == [(1, 1)]
