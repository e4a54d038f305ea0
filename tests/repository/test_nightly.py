"""The nightly gate, on real sessions: what it leaves behind, and that it is never green unread."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nightly
import pytest
from suites import HARDWARE, THRESHOLDS, edit, load, timed

from perfsuite.records.promotion import promote

ROOT = Path(__file__).parents[2]
STARTED = ("perfsuite", "started")
QUIET = """
from perfsuite.measuring import bench

bench.read_cpu_use = lambda: None  # whatever else the machine does while the tests run
"""


@dataclass(frozen=True)
class Night:
    """What a gate left behind."""

    code: int
    said: str
    out: Path

    def outcome(self) -> Any:
        return load(self.out / "outcome.json")


def in_this_process(out: Path, *arguments: str) -> Night:
    """Call the tool without starting it."""
    return Night(nightly.main(["gate", "--device=cpu", "--out", str(out), *arguments]), "", out)


class Place:
    """A folder with a suite in it, and the nights on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # Nothing of the workflow that these tests themselves may run in.
        self.environment = {
            k: v for k, v in os.environ.items() if not k.startswith(("GITHUB", "RUNNER", "PYTEST"))
        } | {
            "PYTEST_ADDOPTS": "--perf-data=synthetic -p no:cacheprovider -p no:hypothesispytest",
            "GITHUB_SHA": "f" * 40,
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        self.write("benchmarks/thresholds.toml", THRESHOLDS)
        self.write("benchmarks/conftest.py", QUIET)
        self.write("benchmarks/test_steps.py", timed("test_a", "test_b"))
        for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "suite"]):
            who = ["-c", "user.name=tests", "-c", "user.email=tests@example.invalid"]
            subprocess.run(["git", *who, *command], cwd=folder, check=True)

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def python(self, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env=self.environment | environment,
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def gate(self, name: str, *arguments: str, **environment: str) -> Night:
        out = self.folder / "nights" / name
        tool = (str(ROOT / "tools" / "nightly.py"), "gate", "--device=cpu", "--out", str(out))
        done = self.python(*tool, *arguments, **environment)
        return Night(done.returncode, done.stdout, out)

    def history(self) -> Path:
        """Make a history of what can and what cannot be reported beside a run; return it."""
        folder = self.folder / "history"
        (run,) = (self.folder / "benchmarks" / "baselines" / HARDWARE).glob("*.json")
        for name in ("1-earlier", "2-later", "3-elsewhere"):
            self.write(f"history/{HARDWARE}/newest/{name}.json", run.read_text(encoding="utf-8"))
        edit(folder / HARDWARE / "newest" / "1-earlier.json", STARTED, "2020-01-01T00:00:00+00:00")
        edit(folder / HARDWARE / "newest" / "2-later.json", STARTED, "2120-01-01T00:00:00+00:00")
        edit(
            folder / HARDWARE / "newest" / "3-elsewhere.json",
            ("perfsuite", "hardware", "key"),
            "cpu-z-x1",
        )
        self.write(
            f"history/{HARDWARE}/newest/4-damaged.json", run.read_text(encoding="utf-8")[:99]
        )
        self.write("history/cpu-z-x1/0-foreign.json", "of no interest")
        return folder


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A suite without a baseline."""
    return Place(tmp_path_factory.mktemp("bare"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A suite with a baseline."""
    place = Place(tmp_path_factory.mktemp("place"))
    run = ("-m", "pytest", "benchmarks", "--perf-device=cpu", "--benchmark-json=run.json")
    done = place.python(*run)
    assert done.returncode == 0, done.stdout
    promote([place.folder / "run.json"], place.folder / "benchmarks", allow_dirty=True)
    return place


@pytest.fixture(scope="module")
def green(place: Place) -> Night:
    history, summary = place.history(), place.folder / "summary.md"
    place.environment["RUNNER_NAME"] = "gpu box/7"
    return place.gate("green", "--history", str(history), GITHUB_STEP_SUMMARY=str(summary))


@pytest.fixture(scope="module")
def red(place: Place) -> Night:
    return place.gate("red", STEP_S="0.02")


@pytest.mark.slow
def test_a_green_night(green: Night) -> None:
    assert green.code == 0, green.said
    assert green.outcome() == {
        "exit_code": 0,
        "verdict": "green",
        "reason": "",
        "hardware": HARDWARE,
        "torch": load(green.out / "run.json")["perfsuite"]["software"]["torch"],
        "commit": load(green.out / "run.json")["commit_info"]["id"],
        "leg": "newest",
        "runner": "gpu box/7",
        "failed": [],
    }
    assert (green.out / "report" / "report.html").is_file()
    assert (green.out / "junit.xml").is_file()
    assert "2 passed" in green.said  # pytest's own output is there to be read


@pytest.mark.slow
def test_what_of_a_history_cannot_be_reported_is_skipped(green: Night) -> None:
    said = [line for line in green.said.splitlines() if "skipped" in line]
    names = ("2-later", "3-elsewhere", "4-damaged")
    assert [sum(name in line for line in said) for name in names] == [1, 1, 1]
    assert len(said) == 3
    report = (green.out / "report" / "report.html").read_text(encoding="utf-8")
    # The earlier one, the baseline and this one; the verdicts are held against the second.
    assert "3 runs. " in report
    assert "2120-01-01" not in report
    assert "which verdicts are held against" not in report


@pytest.mark.slow
def test_github_shows_the_report(green: Night, place: Place) -> None:
    shown = (place.folder / "summary.md").read_text(encoding="utf-8")
    report = (green.out / "report" / "report.md").read_text(encoding="utf-8")
    assert report
    assert shown == f"**green**\n\n{report}\n"


@pytest.mark.slow
def test_a_red_night(red: Night) -> None:
    assert red.code == 1, red.said
    outcome = red.outcome()
    assert (outcome["verdict"], outcome["exit_code"], outcome["reason"]) == ("red", 1, "")
    assert outcome["failed"] == ["test_steps.py::test_a", "test_steps.py::test_b"]
    assert (red.out / "report" / "report.md").is_file()


@pytest.mark.slow
def test_a_night_without_a_baseline(bare: Place) -> None:
    summary = bare.folder / "summary.md"
    night = bare.gate("unfounded", GITHUB_STEP_SUMMARY=str(summary))
    assert night.code == 4, night.said
    outcome, why = night.outcome(), "pytest ended with 4 and wrote no run"
    assert (outcome["verdict"], outcome["reason"]) == ("broken", why)
    assert (outcome["hardware"], outcome["commit"]) == (None, "f" * 40)
    assert summary.read_text(encoding="utf-8") == f"**broken** `{why}`\n\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "code", "reason"),
    [
        ("import os; os.kill(os.getpid(), 9)", 137, "pytest ended with 137 and wrote no run"),
        ("pass", 1, "pytest ended with 0 and wrote no run"),  # green, and nothing was gated
    ],
    ids=["killed", "nothing gated"],
)
def test_a_night_without_a_run(bare: Place, body: str, code: int, reason: str) -> None:
    bare.write(f"plain{code}/test_plain.py", f"def test_plain():\n    {body}\n")
    night = bare.gate(f"plain{code}", "--suite", f"plain{code}")
    assert night.code == code, night.said
    assert (night.outcome()["verdict"], night.outcome()["reason"]) == ("broken", reason)


@pytest.mark.slow
def test_a_green_night_whose_report_is_missing_is_not_green(
    green: Night, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_suite(_: str, out: Path, *__: Path | None) -> int:
        shutil.copy(green.out / "run.json", out)
        (out / "report").mkdir()
        (out / "report" / "report.md").touch()  # takes its place before it is written
        return 0

    monkeypatch.setattr(nightly, "_run_suite", run_suite)
    night = in_this_process(tmp_path / "unreported", "--suite", str(tmp_path))
    assert night.code == 1
    assert night.outcome()["verdict"] == "broken"
    reason = night.outcome()["reason"]
    assert reason.startswith("the report could not be written: ")
    assert "report.md" in reason


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ((), "taken exists and is not empty"),
        (("--history", "nowhere"), "nowhere is no folder with a history"),
    ],
)
def test_what_is_refused_before_anything_runs(
    tmp_path: Path, arguments: tuple[str, ...], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / ("untaken" if arguments else "taken")
    if not arguments:
        out.mkdir()
        (out / "run.json").write_text("a run", encoding="utf-8")
    night = in_this_process(out, *arguments)
    said = capsys.readouterr().err
    assert night.code == 1
    assert said.count("\n") == 1
    assert why in said
    assert not (night.out / "outcome.json").exists()
