"""`perfsuite init`: a new user's suite runs as it is, and nothing is overwritten."""

from pathlib import Path

import pytest

from perfsuite.__main__ import main
from perfsuite.judging.thresholds import load_thresholds
from perfsuite.measuring.machine import machine

FILES = ["conftest.py", "test_step_advice.py", "test_training.py", "thresholds.toml"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_files_are_written_and_told(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init"]) == 0
    assert sorted(path.name for path in (here / "benchmarks").iterdir()) == FILES
    told = capsys.readouterr().out
    assert all(f"wrote benchmarks/{name}" in told for name in FILES)
    assert "pytest benchmarks" in told


@pytest.mark.parametrize("name", FILES)
def test_what_is_there_is_left_and_nothing_else_is_written(
    here: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "perf").mkdir()
    (here / "perf" / name).write_text("mine", encoding="utf-8")
    assert main(["init", "perf"]) == 1
    assert capsys.readouterr().err == f"perfsuite: perf/{name} exists and is not overwritten\n"
    assert [path.name for path in (here / "perf").iterdir()] == [name]
    assert (here / "perf" / name).read_text(encoding="utf-8") == "mine"


def test_the_thresholds_are_valid_also_where_all_of_them_are_used(here: Path) -> None:
    main(["init"])
    path = here / "benchmarks" / "thresholds.toml"
    key = machine("auto").hardware.key
    text = path.read_text(encoding="utf-8")
    assert f'[hardware."{key}"]' in text
    commented = [
        line.removeprefix("# ") for line in text.splitlines() if " = " in line or "[" in line
    ]
    path.write_text("\n".join(line for line in commented if line[0] in "[bmw"), encoding="utf-8")
    assert load_thresholds(path, key).memory.max_activation_ratio == 0.75


@pytest.mark.slow
def test_a_new_suite_runs_as_it_is(pytester: pytest.Pytester) -> None:
    assert main(["init", str(pytester.path / "benchmarks")]) == 0
    result = pytester.runpytest_subprocess(
        "benchmarks", "--perf-device=cpu", "--perf-budget=1", "-k", "not speedup and not time"
    )
    result.stdout.fnmatch_lines(["PASS *amp_probes*fp32* 27 probes passed*"])
    assert result.ret == 0, result.stdout.str()
