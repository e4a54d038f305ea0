"""How many ranks a benchmark has: those that are asked for, or that torchrun started."""

from types import SimpleNamespace
from typing import Any

import pytest
from suites import Suite

from perfsuite.session.options import ranks_of


@pytest.mark.parametrize(
    ("asked", "started", "ranks"), [(None, None, 1), (2, None, 2), (None, "4", 4), (4, "4", 4)]
)
def test_ranks_are_asked_for_or_started(
    asked: int | None, started: str | None, ranks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if started is not None:
        monkeypatch.setenv("WORLD_SIZE", started)
        monkeypatch.setenv("RANK", "0")
    config: Any = SimpleNamespace(option=SimpleNamespace(perf_ranks=asked))
    assert ranks_of(config) == ranks


def test_a_rank_without_a_number_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    config: Any = SimpleNamespace(option=SimpleNamespace(perf_ranks=None))
    with pytest.raises(pytest.UsageError, match="RANK is None"):
        ranks_of(config)


@pytest.mark.parametrize(("ranks", "marker"), [("1", "many_ranks"), ("2", "one_rank")])
def test_markers_of_other_projects_leave_nothing_out(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, ranks: str, marker: str
) -> None:
    suite = Suite(pytester, monkeypatch)
    monkeypatch.setenv("WORLD_SIZE", ranks)
    monkeypatch.setenv("RANK", "0")
    suite.write(
        "test_code.py",
        f"import pytest\n\n\n@pytest.mark.{marker}\ndef test_code():\n    pass\n",
    )
    suite.run().assert_outcomes(passed=1)
