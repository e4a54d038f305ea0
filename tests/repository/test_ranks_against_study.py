"""The study of comparisons of ranks: its suite is one, and its page tells what was recorded."""

from pathlib import Path

import pytest
import ranks_against_study
from comparison_study import ComparedBenchmark, ComparedSession, ComparisonStudy

from perfsuite.judging.thresholds import FILE_NAME, load_thresholds


def session(planted: float, word: str, ratio: float) -> ComparedSession:
    compared = ComparedBenchmark(
        name="test_step_time[fp32]",
        words={"step_s": word},
        ratios=[ratio] * 9,
        figures={"step_s": f"{ratio}x"},
    )
    return ComparedSession(
        planted=planted,
        took_s=60.0,
        started="2026-01-01T00:00:00+00:00",
        load_1min=0.5,
        benchmarks=[compared],
    )


def test_its_suite_lies_in_a_folder_of_its_own(tmp_path: Path) -> None:
    ranks_against_study.add_suite(tmp_path)
    folder = tmp_path / "ranked"
    load_thresholds(folder / FILE_NAME, "cpu-x")
    for path in folder.glob("*.py"):
        compile(path.read_text(encoding="utf-8"), str(path), "exec")


def test_its_page_tells_alarms_and_what_was_found() -> None:
    study = ComparisonStudy(
        hardware="a CPU",
        count=2,
        software={"torch": "2.0", "python": "3.11"},
        sessions=[session(0.0, "SAME", 1.0), session(0.1, "SLOWER", 1.1)],
    )
    page = ranks_against_study.page(study)
    assert page.startswith("# How good is `--perf-against` with ranks?\n\n2 sessions on 2 x a CPU")
    assert "| 0% | step_time[fp32] | step_s | 1 | 1 SAME | 0 | " in page
    assert "| 10% | step_time[fp32] | step_s | 1 | 1 SLOWER | 1 | " in page


def test_nothing_recorded_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--sessions=0", "--planted=0", f"--folder={tmp_path}"]
    assert ranks_against_study.main(given) == 1
    assert capsys.readouterr().err == "ranks-against: nothing was recorded\n"
