"""Projects for comparisons of two trees: a repository with a package, and a suite beside it."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import suites

# Steps here take four times as long, or the same.
THRESHOLDS = suites.THRESHOLDS + "[defaults.against]\nmargin = 0.5\n"

PYPROJECT = """
[tool.pytest.ini_options]
pythonpath = ["src"]
"""

# Time passes where a step says so, and nowhere else: a session says the same on any machine.
MYNET = """
STEP_S = 0.2
now_s = 0.0


def wait(seconds=STEP_S):
    global now_s
    now_s += seconds
"""

CONFTEST = """
from itertools import repeat

import mynet
import pytest
import torch

from perfsuite.devices.cpu import HostClock


@pytest.fixture
def timed(perf):
    def timed(step):
        arm = perf.plain(step, label="fp32")
        perf.clock = HostClock(lambda: mynet.now_s)
        blocks = perf.time(perf.warm(arm), blocks=4)
        perf.profile(arm)
        perf.metric("step_s", min(b.step_s for b in blocks), unit="s", better="lower")

    return timed
"""

BENCHMARK = """
import mynet


def test_step(timed):
    timed(mynet.wait)
"""


def _heed_signals() -> None:
    """Undo what a shell does to its background, or nohup: to let it ignore signals, tests too."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def git_in(folder: Path, *arguments: str) -> str:
    """Run git in a folder; return what it says."""
    who = ("-c", "user.name=tests", "-c", "user.email=tests@example.invalid")
    local = ("-c", "protocol.file.allow=always")
    command = ["git", *who, *local, *arguments]
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout


@dataclass(frozen=True)
class Result:
    """How a session ended. What is not as it should be fails with the whole output."""

    code: int
    out: str

    def ends_with(self, code: int) -> None:
        """Check the exit code."""
        if self.code != code:
            pytest.fail(f"exit code {self.code} instead of {code}:\n{self.out}")

    def line(self, *parts: str) -> str:
        """Return the one line of the output that holds all of these."""
        found = [line for line in self.out.splitlines() if all(part in line for part in parts)]
        if len(found) != 1:
            pytest.fail(f"{len(found)} lines with {parts} in:\n{self.out}")
        return found[0]

    def lacks(self, *texts: str) -> None:
        """Check that none of these is in the output."""
        found = [text for text in texts if text in self.out]
        if found:
            pytest.fail(f"{found} in:\n{self.out}")

    def part(self, start: str, end: str = "") -> "Result":
        """Return the output from the first `start` on, up to the first `end` after it."""
        _, found, rest = self.out.partition(start)
        text, closed, _ = rest.partition(end) if end else (rest, "end", "")
        if not found or not closed:
            pytest.fail(f"no part from {start!r} to {end!r} in:\n{self.out}")
        return Result(self.code, text)


class Project:
    """A repository in a folder of its own.

    Args:
        folder: where it is made; what the sides leave behind would be beside it.
    """

    def __init__(self, folder: Path) -> None:
        self.home = folder
        self.scratch = folder / "scratch"  # the temporary folder of its sessions
        self.scratch.mkdir(parents=True)
        self.folder = folder / "project"
        self.folder.mkdir()
        self.environment = {
            k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "GIT"))
        } | {"TMPDIR": str(self.scratch), "COLUMNS": "300"}
        self.git("init", "--quiet", "--initial-branch=main")
        self.write(".gitignore", "__pycache__/\n.pytest_cache/\n")
        self.write("pyproject.toml", PYPROJECT)
        self.write("src/mynet/__init__.py", MYNET)
        self.write("benchmarks/thresholds.toml", THRESHOLDS)
        self.write("benchmarks/conftest.py", CONFTEST)
        self.write("benchmarks/test_speed.py", BENCHMARK)
        self.commit()

    def write(self, name: str, text: str) -> Path:
        """Write a file of the project."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def git(self, *arguments: str, folder: Path | None = None) -> str:
        """Run git, in the project unless another folder is given; return what it says."""
        return git_in(folder or self.folder, *arguments)

    def commit(self) -> None:
        """Commit the project as it is."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message=project")

    def start(
        self, *arguments: str, folder: str = ".", suite: str = "benchmarks"
    ) -> subprocess.Popen[str]:
        """Start `pytest benchmarks` with these arguments, on its own."""
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "pytest", suite, "--perf-device=cpu"),
                *("--perf-data=synthetic", "-p", "no:cacheprovider", "-p", "no:hypothesispytest"),
                *arguments,
            ],
            cwd=self.folder / folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=_heed_signals,  # noqa: PLW1509  # these tests have one thread
        )

    def run(self, *arguments: str, folder: str = ".", suite: str = "benchmarks") -> Result:
        """Run `pytest benchmarks` with these arguments, on its own."""
        return self.ended(self.start(*arguments, folder=folder, suite=suite))

    def ended(self, session: subprocess.Popen[str]) -> Result:
        """Wait for a session's end and return how it ended."""
        with session:
            try:
                out, _ = session.communicate(timeout=900)
            except subprocess.TimeoutExpired:
                session.kill()
                pytest.fail(f"it does not end:\n{session.communicate()[0]}")
        return Result(session.returncode, out)

    def against(self, *arguments: str) -> Result:
        """Compare with HEAD, as briefly as can be."""
        return self.run("--perf-against=HEAD", "--perf-budget=1", *arguments)

    def stub(self, **says: Any) -> None:
        """Let `stub_server` stand for both sides in sessions with "-pstub_server"."""
        self.environment["PYTHONPATH"] = str(Path(__file__).parent)
        self.environment["STUB"] = json.dumps(says)

    def wait_for(self, pattern: str, session: subprocess.Popen[str]) -> None:
        """Wait until the session's temporary folder holds something of this name."""
        until_s = time.monotonic() + 120
        while not any(self.scratch.glob(pattern)):
            if session.poll() is not None or time.monotonic() > until_s:
                session.kill()
                pytest.fail(f"no {pattern} in time:\n{session.communicate()[0]}")
            time.sleep(0.01)

    def left_behind(self) -> list[str]:
        """Return what sessions left behind that should be gone, once all had time to end."""
        self.wait_until_no_process_is_left()
        worktrees = self.git("worktree", "list", "--porcelain").count("worktree ") - 1
        left = [str(path) for path in self.scratch.glob("perfsuite-*")]
        left += [f"{worktrees} worktrees"] * bool(worktrees)
        return left

    def processes(self) -> list[str]:
        """Return the command lines of the processes that sessions started and that still run."""
        found = []
        for process in psutil.process_iter(["environ", "cmdline"]):
            environment = process.info["environ"] or {}
            if environment.get("TMPDIR") == str(self.scratch):
                found.append(" ".join(process.info["cmdline"] or ["?"]))
        return found

    def wait_until_no_process_is_left(self) -> None:
        """Wait for all processes to end by themselves."""
        until_s = time.monotonic() + 60
        while self.processes():
            if time.monotonic() > until_s:
                pytest.fail(f"still there: {self.processes()}")
            time.sleep(0.1)


def saved(path: Path) -> Any:
    """Return what was saved with --benchmark-json."""
    return json.loads(path.read_text(encoding="utf-8"))


def night(project: Project, factor: float, *arguments: str) -> Result:
    """Compare with promoted runs on a night that is slower by a factor, as $NIGHT tells steps."""
    project.environment["NIGHT"] = str(factor)
    return project.run("--benchmark-compare", "--perf-budget=600", *arguments)


def night_like(path: Path, factor: float) -> Path:
    """Return a copy of a run from a night that was slower by a factor."""
    run = saved(path)
    for benchmark in run["benchmarks"]:
        for metric in benchmark["extra_info"]["perfsuite"]["metrics"].values():
            metric["value"] *= factor
    copy = path.with_name(f"{factor}.json")
    copy.write_text(json.dumps(run), encoding="utf-8")
    return copy
