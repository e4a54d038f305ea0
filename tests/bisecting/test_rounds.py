"""Rounds are kept as they are measured, taken from the file first, and blamed on whom they fail."""

from pathlib import Path
from typing import Any

import pytest

from perfsuite.against.restart import Restart
from perfsuite.bisecting.rounds import Count, Round, RoundLog, figures_of
from perfsuite.judging.counts import Ledger


def test_what_was_measured_is_taken_once_in_its_order(tmp_path: Path) -> None:
    log = RoundLog(tmp_path / "kept" / "a.jsonl")
    rounds = [Round(key="a", version="v", over_good={"x": ratio}) for ratio in (1.0, 2.0)]
    count = Count(key="a", version="v", ledger=Ledger(counts={"c": 1}))
    for each in rounds:
        log.add(each)
    log.add(count)
    assert log.take(Round, "a", "v") is None  # it is for the next time
    with (tmp_path / "kept" / "a.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"type":"round","key":"a","ver')  # broken off
    again = RoundLog(tmp_path / "kept" / "a.jsonl")
    assert again.take(Round, "a", "other") is None
    assert [again.take(Round, "a", "v") for _ in range(3)] == [*rounds, None]
    assert again.take(Count, "a", "v") == count


def side(**metrics: Any) -> dict[str, Any]:
    return {
        "metrics": {name: {"value": value} for name, value in metrics.items()},
        "raw": {"pairs": [{"reference": {"losses": [2.0, 1.0]}, "candidate": {"losses": [None]}}]},
    }


@pytest.mark.parametrize("after", [None, 0.0, float("nan"), float("inf")])
def test_figures_are_those_that_both_have_and_that_have_a_ratio(after: float | None) -> None:
    restart = Restart(
        started="AB",
        duets={},
        before=side(bytes=100.0, odd=1.0, gone=1.0),
        after=side(bytes=150.0, odd=after),
    )
    assert figures_of(restart) == {"bytes": 1.5, "reference mean_loss": 1.0}
