"""Runs that were promoted under the key that a GPU had earlier are still its baseline."""

from pathlib import Path

import pytest
from reports import published, report, written

from perfsuite.records.baseline import load_baseline
from perfsuite.records.history import read_history
from perfsuite.records.promotion import promote

FORMER, CURRENT = "tesla-t4-x2-15gib", "nvidia-tesla-t4-x1-16gib"


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    (tmp_path / "test_speed.py").touch()
    return tmp_path


def promoted(suite: Path, day: str, key: str) -> Path:
    """Put a run where it was promoted to when the hardware had this key."""
    document = published("test_step_time[fp32]")
    document["perfsuite"]["hardware"]["key"] = key
    folder = suite / "baselines" / key
    folder.mkdir(parents=True)
    (path,) = written(folder, document)
    return path.rename(folder / f"{day}T000000.json")


def test_runs_of_a_former_key_are_found(suite: Path) -> None:
    old = promoted(suite, "20260101", FORMER)
    found = load_baseline(suite, CURRENT)
    assert (found.folder, [run.path for run in found.runs]) == (old.parent, [old])
    assert found.runs[0].hardware == CURRENT


def test_of_several_former_keys_the_newest_runs_are_found(suite: Path) -> None:
    newest = promoted(suite, "20260102", "nvidia-a100-x1-39gib")
    promoted(suite, "20260101", "nvidia-a100-x2-40gib")
    assert load_baseline(suite, "nvidia-a100-x1-40gib").folder == newest.parent


def test_a_former_key_is_not_looked_at_beside_the_current_one(suite: Path) -> None:
    promoted(suite, "20260103", FORMER)
    promoted(suite, "20260102", CURRENT)
    assert load_baseline(suite, CURRENT).folder.name == CURRENT


def test_runs_are_promoted_to_those_of_the_same_commit_under_a_former_key(
    suite: Path, tmp_path: Path
) -> None:
    old = promoted(suite, "20260101", FORMER)
    document = published("test_step_time[fp32]")
    document["perfsuite"]["hardware"]["key"] = CURRENT
    (new,) = promote(written(tmp_path, document), suite, allow_dirty=True)
    assert new.parent == old.parent
    assert len(load_baseline(suite, CURRENT).runs) == 2


def test_reports_and_histories_hold_runs_of_both_keys(tmp_path: Path) -> None:
    runs = [published("test_step_time[fp32]") for _ in range(2)]
    for run, key in zip(runs, (FORMER, CURRENT), strict=True):
        run["perfsuite"]["hardware"]["key"] = key
    paths = written(tmp_path, *runs)
    for key in (FORMER, CURRENT):
        series, skipped = read_history(paths, key)
        assert not skipped
        assert {len(each.points) for each in series} == {2}
    report(tmp_path, *runs)
