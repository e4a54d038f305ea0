"""Steps are searched that touch only what is imported between both ends, and at neither."""

import msgspec
from test_searching import KEY, LEDGER, FakeRounds, FakeRow, path, search, told

from perfsuite.bisecting.rounds import Count, Round

BECOMES_B, SLOWER, BECOMES_C = 10, 30, 50


class RowOfFiles(FakeRow):
    """Step 10 puts b.py in the place of a.py, and step 50 c.py; every other fifth edits b.py."""

    def may_change(self, step: int, imported: object) -> bool:
        assert isinstance(imported, set)
        edited = "net.py" if step in (BECOMES_B, BECOMES_C) else "aside.py" if step % 5 else "b.py"
        return edited in imported


class RoundsOfFiles(FakeRounds):
    """Versions that import what they have."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.row = RowOfFiles(self.row.steps)

    def _files(self, version: int) -> list[str]:
        used = "a.py" if version < BECOMES_B else "b.py" if version < BECOMES_C else "c.py"
        return ["net.py", used]

    def round(self, key: str, version: int) -> Round:
        files = sorted({file for at in (0, version, self.n) for file in self._files(at)})
        return msgspec.structs.replace(super().round(key, version), files=files)

    def count(self, key: str, version: int) -> Count:
        return msgspec.structs.replace(super().count(key, version), files=self._files(version))


def test_a_figure_is_blamed_on_the_step_that_changed_it() -> None:
    rounds = RoundsOfFiles({"step_s": path(64, (SLOWER, 0.2))})
    finding = search(rounds)
    assert finding.answer is not None
    (change,) = finding.answer.changes
    assert change.single
    assert finding.steps[change.first - 1] == SLOWER
    assert f"at commit {SLOWER} (" in told(finding, rounds)
    assert "52 commits of 64 touch nothing that it imports" in told(finding, rounds)
    assert all(version in (64, *finding.steps) for version in rounds.read[KEY])


def test_counts_are_blamed_on_the_step_that_changed_them() -> None:
    casts = [1] * SLOWER + [2] * (65 - SLOWER)
    finding = search(RoundsOfFiles({"step_s": path(64)}, casts=casts), key=LEDGER)
    assert [each[:2] for each in finding.counted] == [(SLOWER, SLOWER)]


def test_a_change_that_is_taken_back_in_between_is_found() -> None:
    rounds = RoundsOfFiles({"step_s": path(64, (20, 0.25), (40, -0.2))})
    finding = search(rounds)
    assert finding.answer is not None
    assert [finding.steps[each.first - 1] for each in finding.answer.changes] == [20, 40]
