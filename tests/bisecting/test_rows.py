"""What is told of a step of a row, once it is known to be the change."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from perfsuite.bisecting.rows import CommitRow
from perfsuite.records.commits import CommitOfRow
from perfsuite.records.git import Ref


def test_a_merge_is_searched_for_the_same_benchmark_and_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config: Any = SimpleNamespace(option=SimpleNamespace(perf_ranks=2))
    end = Ref(name="HEAD", commit="0" * 40, top=tmp_path, dirty=False)
    commits = [
        CommitOfRow(hash=name * 40, title="", parents=parents, touched=())
        for name, parents in (("a", ("0" * 40,)), ("b", ("a" * 40, "c" * 40)))
    ]
    row = CommitRow(config=config, suite=tmp_path / "speed", good=end, bad=end, commits=commits)
    merge = "bbbbbbbbbbbb"
    assert row.advice(1, "test_a.py::test_a", "step_s") is None
    assert row.advice(2, "test_a.py::test_a[fp32]", "step_s") == (
        f"a merge; into it: perfsuite bisect $(git merge-base {merge}^1 {merge}^2) {merge}^2"
        " speed/test_a.py --suite speed -k 'test_a[fp32]' --figure step_s --perf-ranks 2"
    )


@pytest.mark.parametrize(
    ("suite", "told"),
    [
        ("speed", ["1 commit changed the benchmarks, which all versions run as they are now: "]),
        ("elsewhere", []),
    ],
)
def test_changes_of_the_suite_are_told_not_to_be_searched(
    tmp_path: Path, suite: str, told: list[str]
) -> None:
    config: Any = None
    end = Ref(name="HEAD", commit="0" * 40, top=tmp_path, dirty=False)
    commits = [
        CommitOfRow(hash="a" * 40, title="", parents=(), touched=(file,))
        for file in ("speed/conftest.py", "speed/baselines/cpu/1.json", "net/a.py")
    ]
    row = CommitRow(config=config, suite=tmp_path / suite, good=end, bad=end, commits=commits)
    assert row.header()[2:] == [f"{each}that is not searched" for each in told]
