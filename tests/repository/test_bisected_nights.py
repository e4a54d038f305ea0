"""What a red night bisects: after it has told what came of it, and within the time for that."""

import shutil
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nightly
import pytest
from red_issue import ANSWERS, answers_of
from suites import load

from perfsuite.records.commits import WHICH

(RUN,) = (Path(__file__).parents[2] / "docs" / "runs").glob("cpu-*.json")


def red_run(benchmarks: int) -> Any:
    reasons = ["software: torch 1 -> 2", f"{WHICH}bisect 0123abc -k 'test_a[x]'"]
    red = {str(each): SimpleNamespace(reasons=reasons) for each in range(benchmarks)}
    return SimpleNamespace(benchmarks=red | {"b": SimpleNamespace(reasons=[])})


def test_a_red_night_runs_the_bisections_that_it_was_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, ran = [7.0], []

    def answer(command: list[str], _: float) -> str:
        ran.append(command)
        now[0] += 200.0
        home = Path(command[-1].removeprefix("--output="))
        home.mkdir(parents=True)
        (home / "bisect.md").write_text("    0123abc: 2 % slower\n", encoding="utf-8")
        return "ended with 0"

    monkeypatch.setattr("nightly.run_until", answer)
    monkeypatch.setattr("nightly.time.monotonic", lambda: now[0])
    folder = tmp_path / ANSWERS
    nightly.bisect(red_run(2), "cuda", folder, 600.0)
    assert [command[2:] for command in ran] == [
        [
            *("perfsuite", "bisect", "0123abc", "-k", "test_a[x]"),
            *("--perf-device=cuda", budget, f"--output={folder / str(number)}"),
        ]
        for number, budget in enumerate(["--budget=450", "--budget=300"])
    ]
    assert answers_of(tmp_path) == ["bisected: `0123abc: 2 % slower`"] * 2


def test_no_bisection_begins_once_too_little_time_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, ran = [7.0], []

    def overrun(command: list[str], deadline_s: float) -> str:
        ran.append((command, deadline_s))
        now[0] += 150.0
        return "ended with 4"

    monkeypatch.setattr("nightly.run_until", overrun)
    monkeypatch.setattr("nightly.time.monotonic", lambda: now[0])
    nightly.bisect(red_run(3), "cuda", tmp_path / ANSWERS, 600.0)
    assert [deadline_s for _, deadline_s in ran] == [607.0, 607.0]
    assert [command[-2] for command, _ in ran] == ["--budget=450", "--budget=338"]
    command = "perfsuite bisect 0123abc -k 'test_a[x]'"
    assert answers_of(tmp_path) == [
        f"bisected: `no answer: {why}: {command}`"
        for why in ("ended with 4", "ended with 4", "out of time")
    ]


@pytest.mark.parametrize("stubborn", [False, True])
def test_what_runs_over_is_ended_by_a_signal_that_lets_it_clean_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stubborn: bool
) -> None:
    monkeypatch.setattr("nightly.CLEANING_UP_S", 0.0 if stubborn else 60.0)
    ready, cleaned = tmp_path / "ready", tmp_path / "cleaned"
    program = f"""
import pathlib, signal, time
def clean_up(*_):
    pathlib.Path({str(cleaned)!r}).touch()
    {"" if stubborn else "raise SystemExit"}
signal.signal(signal.SIGTERM, clean_up)
pathlib.Path({str(ready)!r}).touch()
while True:
    time.sleep(0.01)
"""

    def once_ready() -> float:
        while not ready.exists():
            time.sleep(0.01)
        return 7.0

    monkeypatch.setattr("nightly.time.monotonic", once_ready)
    assert nightly.run_until([sys.executable, "-c", program], 7.0) == "out of time"
    assert stubborn or cleaned.exists()


def test_what_came_of_a_night_is_written_before_anything_is_bisected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, summary, told = tmp_path / "out", tmp_path / "summary.md", []

    def red(*_: object) -> int:
        shutil.copy(RUN, out / "run.json")
        return 1

    def bisect(_: object, __: str, folder: Path, budget_s: float) -> None:
        told.append((load(out / "outcome.json")["verdict"], summary.read_text(encoding="utf-8")))
        assert (folder, budget_s) == (out / ANSWERS, 600.0)
        (folder / "0").mkdir(parents=True)
        (folder / "0" / "bisect.md").write_text("    0123abc: 2 % slower\n", encoding="utf-8")

    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    monkeypatch.setattr(nightly, "_run_suite", red)
    monkeypatch.setattr(nightly, "_write_report", lambda *_: "no report")
    monkeypatch.setattr(nightly, "bisect", bisect)
    arguments = ["gate", "--device=cpu", "--out", str(out), "--suite", str(tmp_path)]
    assert nightly.main([*arguments, "--bisect=600"]) == 1
    ((verdict, before),) = told
    assert verdict == "red"
    assert before.startswith("**red**")
    after = summary.read_text(encoding="utf-8")
    assert after == f"{before}- bisected: `0123abc: 2 % slower`\n"
