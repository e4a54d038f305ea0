"""Runs of several ranks are hardware of their own: nothing holds them against those of one."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from reports import content, published, written

from perfsuite.judging.thresholds import load_thresholds
from perfsuite.records.baseline import BaselineError, load_baseline
from perfsuite.records.evidence import read_evidence
from perfsuite.records.history import HistoryError, read_history
from perfsuite.records.liveness import last_evaluated
from perfsuite.records.promotion import promote
from perfsuite.records.schema import RunError, read_run

ONE = "nvidia-h100-80gb-hbm3-x1-80gib"
KEYS = [ONE, f"{ONE}-ranks-1x2", f"{ONE}-ranks-2x1", f"{ONE}-ranks-32x8"]


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """Return a run of each key."""
    documents = [published("test_step_time[fp32]") for _ in KEYS]
    for document, key in zip(documents, KEYS, strict=True):
        document["perfsuite"]["hardware"]["key"] = key
    return written(tmp_path, *documents)


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    folder = tmp_path / "suite"
    folder.mkdir()
    (folder / "test_speed.py").touch()
    return folder


def test_each_is_promoted_to_a_folder_of_its_own_and_found_there(
    runs: list[Path], suite: Path
) -> None:
    folders = [path.parent.name for path in promote(runs, suite, allow_dirty=True)]
    assert sorted(folders) == sorted(KEYS)
    for key in KEYS:
        assert [run.hardware for run in load_baseline(suite, key).runs] == [key]


@pytest.mark.parametrize(("there", "asked"), [(0, 1), (1, 0), (1, 2)])
def test_a_run_of_other_ranks_is_no_baseline(
    there: int, asked: int, runs: list[Path], suite: Path
) -> None:
    (promoted,) = promote([runs[there]], suite, allow_dirty=True)
    with pytest.raises(BaselineError, match=f"there are runs of {KEYS[there]}\\)"):
        load_baseline(suite, KEYS[asked])
    folder = suite / "baselines" / KEYS[asked]
    folder.mkdir()
    promoted.rename(folder / promoted.name)
    with pytest.raises(BaselineError, match=f"was measured on {KEYS[there]}, not {KEYS[asked]}"):
        load_baseline(suite, KEYS[asked])


def test_a_history_is_of_one_number_of_ranks(runs: list[Path]) -> None:
    with pytest.raises(HistoryError, match="ranks-1x2"):
        read_history(runs)
    series, _ = read_history(runs, KEYS[1])
    assert {point.path for each in series for point in each.points} == {runs[1]}


def test_a_report_refuses_earlier_runs_of_other_ranks(tmp_path: Path) -> None:
    one, two = (published("test_step_time[fp32]") for _ in range(2))
    two["perfsuite"]["hardware"]["key"] = f"{one['perfsuite']['hardware']['key']}-ranks-1x2"
    with pytest.raises(RunError, match="was measured on"):
        content(tmp_path, one, two)
    assert content(tmp_path, two).page.rows


def test_each_is_watched_and_advised_by_itself(runs: list[Path], suite: Path) -> None:
    now = datetime(2026, 1, 2, tzinfo=UTC)
    assert [each.hardware for each in last_evaluated(runs, now)[0]] == sorted(KEYS)
    evidence = read_evidence(suite, runs[0].parent, KEYS[1])
    assert evidence.hardware == KEYS[1]


def test_thresholds_of_a_kind_of_gpu_hold_for_any_number_of_ranks(tmp_path: Path) -> None:
    path = tmp_path / "thresholds.toml"
    path.write_text(
        '[hardware."nvidia-*".compare]\nmargin = 0.1\n'
        '[hardware."*-ranks-*".compare]\nassumed_spread = 0.5\n'
        f'[hardware."{ONE}".compare]\nmargin = 0.2\n'
    )
    of_one, of_two = (load_thresholds(path, key).compare for key in KEYS[:2])
    assert (of_one.margin, of_two.margin) == (0.2, 0.1)
    assert (of_one.assumed_spread == 0.5, of_two.assumed_spread) == (False, 0.5)


def test_the_key_stays_as_it_is_when_it_is_read(runs: list[Path]) -> None:
    assert [read_run(path).hardware for path in runs] == KEYS
