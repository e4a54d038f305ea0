"""A row is searched for what changed a benchmark: counts first, then a figure, then words."""

import random
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from perfsuite.bisecting.answers import answer_lines
from perfsuite.bisecting.rounds import BisectionError, Count, Round
from perfsuite.bisecting.searching import Finding, Searcher
from perfsuite.judging.counts import Ledger
from perfsuite.judging.thresholds import load_thresholds

THRESHOLDS = load_thresholds(Path("no thresholds.toml"), "cpu-any")
KEY, LEDGER = "test_speed.py::test_step[fp32]", "test_ledger.py::test_ledger[fp32]"


@dataclass
class FakeRow:
    """Versions whose steps are numbered; prose changes nothing that is imported."""

    steps: Sequence[str]
    prose: Collection[int] = ()
    noun: str = "commit"

    def may_change(self, step: int, imported: Collection[str]) -> bool:
        assert {*imported} == {"net.py"}
        return step not in self.prose

    def advice(self, step: int, key: str, figure: str) -> str | None:
        return f"a merge of {key} {figure}".rstrip() if step == 40 else None

    def header(self) -> list[str]:
        return ["good: a", "bad:  b"]


@dataclass
class FakeRounds:
    """What versions 0 to n would be measured to be, without a process."""

    figures: dict[str, list[float]]
    casts: Sequence[int] = ()
    noise: float = 0.02
    broken: Collection[int] = ()
    prose: Collection[int] = ()
    counts_alone: Collection[str] = (LEDGER,)
    counts_too: Collection[str] = ()
    refused: str = ""
    uncounted: Collection[int] = ()
    takes_s: float = 0.0  # a round, or a count
    now_s: float = 0.0
    read: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    counted: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        self.n = len(next(iter(self.figures.values()))) - 1
        self.row: Any = FakeRow([f"commit {step}" for step in range(1, self.n + 1)], self.prose)
        items: dict[str, list[str]] = {KEY: []}
        if self.casts:
            items[LEDGER] = []
        self.collected: Any = {self.n: SimpleNamespace(items=items)}
        self._draw = random.Random(1)

    def told(self, version: int) -> str:
        return f"commit {version}"

    def end_between(self) -> None:
        pass

    def round(self, key: str, version: int) -> Round:
        self.read[key].append(version)
        self.now_s += self.takes_s
        if self.refused:
            raise BisectionError(self.refused)
        if version in self.broken:
            return Round(key=key, version=str(version), why="it cannot be imported")

        def ratios(after: int, before: int) -> dict[str, float]:
            scatter = 1 + self._draw.gauss(0, self.noise)
            return {name: at[after] / at[before] * scatter for name, at in self.figures.items()}

        return Round(
            key=key,
            version=str(version),
            over_good=ratios(version, 0),
            bad_over=ratios(self.n, version) if version != self.n else {},
            files=["net.py"],
        )

    def count(self, key: str, version: int) -> Count:
        if version not in self.counted[key]:  # or it is known already
            self.counted[key].append(version)
            self.now_s += self.takes_s
        if version in self.broken:
            raise BisectionError("the good end failed")
        counts = key in {*self.counts_alone, *self.counts_too} and version not in self.uncounted
        return Count(
            key=key,
            version=str(version),
            ledger=Ledger(counts={"forward: cast": self.casts[version]}) if counts else None,
            measures=key not in self.counts_alone,
            files=["net.py"],
        )


def path(n: int, *changes: tuple[int, float]) -> list[float]:
    return [
        1.0 * _product(1 + size for at, size in changes if at <= version)
        for version in range(n + 1)
    ]


def _product(values: Any) -> float:
    found = 1.0
    for value in values:
        found *= value
    return found


def search(
    rounds: FakeRounds, *, key: str = KEY, figure: str | None = None, budget_s: float = 1e9
) -> Finding:
    show: Callable[[str, int, int], None] = lambda *_: None  # noqa: E731  # nobody looks
    fake: Any = rounds
    searcher = Searcher(
        rounds=fake, thresholds=THRESHOLDS, figure=figure, budget_s=budget_s, show=show
    )
    finding = Finding(key=key)
    searcher.search(finding)
    return finding


def told(finding: Finding, rounds: FakeRounds) -> str:
    return "\n".join(answer_lines(finding, rounds.row))


def test_the_commit_is_named_with_size_share_and_probability() -> None:
    rounds = FakeRounds({"step_s": path(64, (40, 0.2))})
    finding = search(rounds)
    line = next(line for line in told(finding, rounds).splitlines() if " at commit 40 (" in line)
    assert line.startswith("  1.")
    assert line.endswith("of the difference")
    assert f"    a merge of {KEY} step_s" in told(finding, rounds)
    assert not finding.open
    assert set(rounds.read[KEY]) == {64, *(v for v in finding.levels if v)}


def test_commits_that_touch_nothing_are_left_out_and_that_is_said() -> None:
    prose = [step for step in range(1, 65) if step % 4]
    rounds = FakeRounds({"step_s": path(64, (40, 0.2))}, prose=prose)
    assert "48 commits of 64 touch nothing that it imports" in told(search(rounds), rounds)
    assert not set(rounds.read[KEY]) & {*prose}


def test_where_no_commit_can_change_it_there_is_no_answer_and_no_search() -> None:
    rounds = FakeRounds({"step_s": path(8, (3, 0.2))}, prose=range(1, 9))
    finding = search(rounds)
    assert finding.open == "no commit between touches what the benchmark imports"
    assert set(rounds.read[KEY]) == {8}


def test_a_commit_that_cannot_be_compared_is_skipped_and_said_so() -> None:
    rounds = FakeRounds({"step_s": path(64, (33, 0.2))}, broken=(32, 33))
    text = told(search(rounds), rounds)
    assert "skipped commit 32: it cannot be imported" in text
    assert "one of 3 commits, 'commit 32' to 'commit 34'" in text


def test_counts_that_change_are_found_exactly_and_tell_where_to_look_first() -> None:
    casts = [1] * 20 + [3] * 45
    rounds = FakeRounds({"step_s": path(64, (20, 0.2))}, casts=casts)
    finding = search(rounds)
    assert finding.counted == [(20, 20, ["+2 forward: cast (1 -> 3)"])]
    assert finding.answer is not None
    assert [each.first for each in finding.answer.changes] == [20]
    assert finding.comparisons < search(FakeRounds({"step_s": path(64, (20, 0.2))})).comparisons
    text = told(finding, rounds)
    assert "counts change at commit 20\n    +2 forward: cast (1 -> 3)" in text


def test_counts_that_an_end_cannot_give_leave_the_figure_to_be_searched() -> None:
    rounds = FakeRounds({"step_s": path(64, (20, 0.2))}, casts=[1] * 65, broken=(0,))
    finding = search(rounds)
    assert finding.notes == ["counts tell nothing: the good end failed"]
    assert finding.answer is not None
    assert [each.first for each in finding.answer.changes] == [20]
    with pytest.raises(BisectionError):
        search(rounds, key=LEDGER)


def test_a_benchmark_that_only_counts_is_searched_by_counts_alone() -> None:
    rounds = FakeRounds({"step_s": path(8)}, casts=[1, 1, 1, 2, 2, 2, 2, 2, 2])
    finding = search(rounds, key=LEDGER)
    assert finding.counted == [(3, 3, ["+1 forward: cast (1 -> 2)"])]
    assert not rounds.read[KEY]
    same = FakeRounds({"step_s": path(8)}, casts=[1] * 9)
    assert "both ends count the same" in told(search(same, key=LEDGER), same)
    merged = FakeRounds({"step_s": path(64)}, casts=[1] * 40 + [2] * 25)
    assert "a merge" in told(search(merged, key=LEDGER), merged)
    with pytest.raises(BisectionError, match=r"ledger\[fp32\] only counts: it has no figure s"):
        search(same, key=LEDGER, figure="step_s")


def test_counts_that_differ_where_no_commit_can_change_them_are_no_answer() -> None:
    rounds = FakeRounds({"step_s": path(2)}, casts=[1, 1, 2], prose=(1, 2))
    with pytest.raises(BisectionError, match="counts differ, but no commit between touches"):
        search(rounds, key=LEDGER)
    rounds.casts = [1, 1, 1]
    assert not search(rounds, key=LEDGER).open


def test_what_counts_is_told_by_its_record_and_not_by_its_name() -> None:
    key, casts = "test_ranks.py::test_collectives[fp32]", [1, 1, 1, 2, 2, 2, 2, 2, 2]
    both = FakeRounds({"step_s": path(8)}, casts=casts, counts_alone=(key, LEDGER))
    assert [each[:2] for each in search(both, key=key).counted] == [(3, 3)]
    assert not both.read
    assert LEDGER not in both.counted
    both = FakeRounds({"step_s": path(8)}, casts=casts, counts_too=(KEY,))
    finding = search(both)
    assert [each[:2] for each in finding.counted] == [(3, 3)]
    assert finding.figure == "step_s"
    named = FakeRounds({"step_s": path(8)}, casts=casts, counts_alone=())
    assert search(named, key=LEDGER).figure == "step_s"  # it keeps none, and is measured
    gone = FakeRounds({"step_s": path(8)}, casts=casts, uncounted=(0,))
    with pytest.raises(BisectionError, match=r"counts nothing: ledger\[fp32\] keeps no ledger"):
        search(gone, key=LEDGER)


@pytest.mark.parametrize(
    ("others", "counting"),
    [
        (["b.py::test_ledger[fp32]", "a.py::test_ledger[fp32]"], "a.py::test_ledger[fp32]"),
        (["b.py::test_ledger[fp32]", "b.py::test_ledger[bf16]"], "b.py::test_ledger[fp32]"),
        (["b.py::test_ledger[fp32]", "c.py::test_ledger[fp32]"], None),
        (["b.py::test_ledger", "a.py::test_ledger[bf16]"], None),
    ],
)
def test_a_ledger_is_of_the_same_file_or_the_only_one(
    others: Sequence[str], counting: str | None
) -> None:
    key = "a.py::test_step[fp32]"
    rounds = FakeRounds({"step_s": path(8)}, casts=[1] * 9, counts_alone=others)
    rounds.collected[8].items = {each: [] for each in (*others, key)}
    search(rounds, key=key)
    assert {*rounds.counted} == {key, counting} - {None}


def test_count_changes_stay_where_nothing_can_be_measured() -> None:
    casts = [1, 1, 1, 2, 2, 2, 2, 2, 2]
    rounds = FakeRounds({"step_s": path(8)}, casts=casts, refused="both ends cannot be compared")
    finding = search(rounds)
    assert finding.open == "both ends cannot be compared"
    assert "counts change at commit 3" in told(finding, rounds)
    rounds.casts = [1] * 9
    with pytest.raises(BisectionError):
        search(rounds)


def test_the_first_figure_that_differs_is_searched_and_others_are_told() -> None:
    figures = {
        "calm_s": path(16),
        "step_s": path(16, (5, 0.2)),
        "kernel_s": path(16, (9, 0.3)),
    }
    finding = search(FakeRounds(figures))
    assert finding.figure == "step_s"
    assert "kernel_s differs, too: --figure" in finding.notes
    finding = search(FakeRounds(figures), figure="kernel_s")
    assert finding.answer is not None
    assert [each.first for each in finding.answer.changes] == [9]
    assert "step_s differs, too: --figure" in finding.notes
    with pytest.raises(BisectionError, match="has no figure gone, but calm_s, step_s, kernel_s"):
        search(FakeRounds(figures), figure="gone")


def test_without_a_change_it_says_so() -> None:
    rounds = FakeRounds({"step_s": path(64)}, noise=0.01)
    assert "no change beyond the margin (" in told(search(rounds), rounds)


def test_noise_is_no_answer() -> None:
    rounds = FakeRounds({"step_s": path(64)}, noise=0.25)
    finding = search(rounds)
    assert finding.answer is not None
    assert finding.open or not all(each.single for each in finding.answer.changes)
