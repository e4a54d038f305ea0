"""Histories: what is read, what is skipped, and where a figure shows a lasting change."""

import json
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfsuite.__main__ import main
from perfsuite.records.history import (
    LEAST_RUNS,
    HistoryError,
    Series,
    change_points,
    read_history,
    tell,
)
from perfsuite.report.panels import draw_history

DOCS = Path(__file__).parents[2] / "docs"


def run(value: float, number: int, **changed: Any) -> dict[str, Any]:
    settings = {"hardware": "cpu-a-x1", "torch": "2.14", "batch_size": 16} | changed
    metrics = {"step_s": {"value": value, "unit": "s", "better": settings.get("better", "lower")}}
    return {
        "perfsuite": {
            "schema": 1,
            "hardware": {"key": settings["hardware"], "name": "a"},
            "started": f"2026-01-{number // 24 + 1:02}T{number % 24:02}:00:00+00:00",
            "software": {"torch": settings["torch"]},
        },
        "commit_info": {"id": f"{number:040x}", "dirty": False},
        "benchmarks": [
            {
                "extra_info": {
                    "perfsuite": {
                        "key": "test_step_time.py::test_step_time[fp32]",
                        "metrics": metrics,
                        "config": {"batch_size": settings["batch_size"]},
                    }
                }
            }
        ],
    }


def later() -> str:
    document = run(0.03, 0)
    document["perfsuite"]["schema"] = 2
    return json.dumps(document)


def no_benchmark() -> str:
    return json.dumps(run(0.03, 0) | {"benchmarks": [{"extra_info": {}}]})


def write(folder: Path, runs: Sequence[dict[str, Any]]) -> None:
    for number, each in enumerate(runs):
        # Named against the order in time, which is what counts.
        path = folder / f"{len(runs) - number:04}.json"
        path.write_text(json.dumps(each), encoding="utf-8")


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.json"))


def noisy(n: int, seed: int = 0) -> list[float]:
    scatter = np.random.default_rng(seed).normal(0, 0.01, n)
    return [float(0.03 * np.exp(each)) for each in scatter]


def slower(n: int = 20, factor: float = 1.1) -> list[float]:
    values = noisy(2 * n)
    return [*values[:n], *(value * factor for value in values[n:])]


def only(folder: Path) -> Series:
    (series,), skipped = read_history(files(folder))
    assert skipped == []
    return series


def test_a_change_is_told_with_commits_sizes_and_what_differs(tmp_path: Path) -> None:
    runs = [
        run(value, number, torch="2.14" if number < 20 else "2.15")
        for number, value in enumerate(slower())
    ]
    write(tmp_path, runs)
    first, change, software = tell(only(tmp_path))
    assert first.startswith("step_time[fp32] step_s: 40 runs, 0.03")
    assert "worse, from run 21 on (2026-01-01, " in change
    assert f"{19:040x}"[:12] in change
    assert software.strip() == "torch 2.14 -> 2.15"


def test_a_change_for_the_better_is_told_as_that(tmp_path: Path) -> None:
    write(tmp_path, [run(v, n) for n, v in enumerate(slower(factor=0.9))])
    assert ", better, " in tell(only(tmp_path))[1]
    write(tmp_path, [run(v, n, better="higher") for n, v in enumerate(slower(factor=0.9))])
    assert ", worse, " in tell(only(tmp_path))[1]


def test_steady_runs_have_no_change(tmp_path: Path) -> None:
    write(tmp_path, [run(value, number) for number, value in enumerate(noisy(60))])
    assert only(tmp_path).changes() == ()


def test_runs_that_measured_differently_are_left_out_and_counted(tmp_path: Path) -> None:
    runs = [run(v, n, batch_size=8 if n < 5 else 16) for n, v in enumerate(noisy(20))]
    write(tmp_path, runs)
    series = only(tmp_path)
    assert (len(series.points), series.left_out) == (15, 5)
    assert "(5 that measured it differently are left out)" in tell(series)[0]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b'{"cut', "truncated"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[]", "it has no section 'perfsuite'"),
        (b"{}", "it has no section 'perfsuite'"),
        (later().encode(), "written by a later perfsuite"),
        (no_benchmark().encode(), "holds no benchmark of perfsuite"),
        (json.dumps(run(-1.0, 0)).encode(), "Expected `float` > 0"),
    ],
    ids=["cut", "binary", "list", "other", "later", "empty", "negative"],
)
def test_what_cannot_be_read_is_listed_and_skipped(
    tmp_path: Path, content: bytes, why: str
) -> None:
    write(tmp_path, [run(value, number) for number, value in enumerate(noisy(10))])
    (tmp_path / "bad.json").write_bytes(content)
    (series,), (skipped,) = read_history(files(tmp_path))
    assert len(series.points) == 10
    assert skipped.startswith(f"{tmp_path / 'bad.json'}: ")
    assert why in skipped


def test_how_a_file_is_laid_out_says_nothing_of_what_was_measured(tmp_path: Path) -> None:
    write(tmp_path, [run(1.0, 0), run(1.0, 1)])
    path = files(tmp_path)[0]
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")), indent=4), encoding="utf-8")
    (series,), _ = read_history(files(tmp_path))
    assert (len(series.points), series.left_out) == (2, 0)


def test_a_comparison_of_two_trees_is_no_run(tmp_path: Path) -> None:
    both = run(0.03, 0)
    both["perfsuite"]["against"] = {"ref": "main"}
    write(tmp_path, [both, run(0.03, 1)])
    (series,), (skipped,) = read_history(files(tmp_path))
    assert len(series.points) == 1
    assert "compares two trees" in skipped


def test_several_hardware_are_told_apart(tmp_path: Path) -> None:
    write(tmp_path, [run(0.03, 0), run(0.01, 1, hardware="nvidia-h200-x1")])
    with pytest.raises(HistoryError, match=r"\(cpu-a-x1, nvidia-h200-x1\): choose one"):
        read_history(files(tmp_path))
    (series,), _ = read_history(files(tmp_path), "nvidia-h200-x1")
    assert [point.value for point in series.points] == [0.01]


def test_nothing_to_tell_is_an_error_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(HistoryError, match="no run"):
        read_history(files(tmp_path))
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(HistoryError, match=r"1 files were skipped, such as .*bad\.json"):
        read_history(files(tmp_path))


def test_the_published_run_is_read(tmp_path: Path) -> None:
    histories, _ = read_history(files(DOCS / "runs"))
    assert "step_s" in {series.name for series in histories}


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf")])
def test_values_that_are_none_are_refused(bad: float) -> None:
    with pytest.raises(HistoryError):
        change_points([1.0, bad])


def test_counted_figures_change_at_once() -> None:
    assert change_points([100.0] * 5 + [104.0] * 5) == [5]
    assert change_points([100.0] * 10) == []


@given(st.lists(st.floats(0.01, 100.0), max_size=80))
def test_changes_lie_within_and_leave_enough_on_either_side(values: list[float]) -> None:
    at = change_points(values)
    assert at == sorted(set(at))
    assert all(0 < each < len(values) for each in at)
    assert len(values) >= 2 * LEAST_RUNS or at == []


def test_a_stray_is_no_change() -> None:
    values = noisy(60)
    values[30] *= 1.3
    assert change_points(values) == []


def test_the_command_tells_and_draws_and_overwrites_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    write(runs, [run(v, n) for n, v in enumerate(slower())])
    (runs / "bad.json").write_text("{")
    picture = tmp_path / "history.svg"
    assert main(["history", str(runs), "-o", str(picture)]) == 0
    told = capsys.readouterr()
    assert "worse, from run 21 on" in told.out
    assert "skipped: " in told.err
    before = picture.read_bytes()
    assert main(["history", str(runs), "-o", str(picture)]) == 1
    assert "exists and is not overwritten" in capsys.readouterr().err
    assert picture.read_bytes() == before


def test_the_picture_has_a_panel_a_series_with_units_and_the_change(tmp_path: Path) -> None:
    write(tmp_path, [run(v, n) for n, v in enumerate(slower())])
    series = only(tmp_path)
    content = draw_history([series, series], "cpu-a-x1")
    texts = [element.text for element in ET.fromstring(content).iter() if element.text]
    shown = " ".join(texts)
    assert shown.count("step_time[fp32] step_s") == 2
    assert texts.count("s") == 2
    (change,) = series.changes()
    assert str(change) in shown
    assert draw_history([series, series], "cpu-a-x1") == content


def test_contaminated_runs_are_skipped_and_counted(tmp_path: Path) -> None:
    paths = []
    for number in range(12):
        document = run(0.03 if number % 3 else 0.09, number)
        record = document["benchmarks"][0]["extra_info"]["perfsuite"]
        record["contamination"] = [] if number % 3 else ["other processes used 50% of the cores"]
        paths.append(tmp_path / f"{number:02}.json")
        paths[-1].write_text(json.dumps(document), encoding="utf-8")
    (series,), skipped = read_history(paths)
    assert (len(series.points), series.contaminated, skipped) == (8, 4, [])
    assert {point.value for point in series.points} == {0.03}
    assert "(4 that were contaminated are left out)" in tell(series)[0]
    with pytest.raises(HistoryError, match="no run; 1 files were skipped, such as step_time"):
        read_history(paths[:1])
