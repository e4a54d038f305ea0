"""Projects for comparisons of two trees: a repository with a package, and a suite beside it."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import partial
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

# A step is a wait: as long as it is said to be, whatever else the machine does.
MYNET = """
import time

STEP_S = 0.002


def wait(seconds=STEP_S):
    until_s = time.perf_counter() + seconds
    while time.perf_counter() < until_s:
        pass
"""

CONFTEST = """
from itertools import repeat

import pytest
import torch

from perfsuite.devices.precision import Precision
from perfsuite.training.workload import Arm


@pytest.fixture
def timed(perf):
    def timed(step):
        arm = Arm(
            precision=Precision.fp32,
            step=lambda images, labels: step(),
            order=repeat((torch.empty(1), torch.empty(1))),
            restore=lambda: None,
        )
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


@dataclass(frozen=True)
class Result:
    """How a session ended."""

    code: int
    out: str

    def line(self, *parts: str) -> str:
        """Return the one line of the output that holds all of these."""
        found = [line for line in self.out.splitlines() if all(part in line for part in parts)]
        if len(found) != 1:
            pytest.fail(f"{len(found)} lines with {parts} in:\n{self.out}")
        return found[0]


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
        who = ("-c", "user.name=tests", "-c", "user.email=tests@example.invalid")
        local = ("-c", "protocol.file.allow=always")
        done = subprocess.run(
            ["git", *who, *local, *arguments],
            cwd=folder or self.folder,
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout

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
            # A shell lets what it starts in the background ignore Ctrl-C, the tests included.
            preexec_fn=partial(  # noqa: PLW1509  # these tests have one thread
                signal.signal, signal.SIGINT, signal.SIG_DFL
            ),
        )

    def run(self, *arguments: str, folder: str = ".", suite: str = "benchmarks") -> Result:
        """Run `pytest benchmarks` with these arguments, on its own."""
        with self.start(*arguments, folder=folder, suite=suite) as session:
            out, _ = session.communicate(timeout=300)
        return Result(session.returncode, out)

    def against(self, *arguments: str) -> Result:
        """Compare with HEAD, as briefly as can be."""
        return self.run("--perf-against=HEAD", "--perf-budget=1", *arguments)

    def interrupt(self, session: subprocess.Popen[str], number: signal.Signals) -> Result:
        """Send a running session a signal and return how it ended."""
        session.send_signal(number)
        out, _ = session.communicate(timeout=60)
        return Result(session.returncode, out)

    def wait_for(self, pattern: str, session: subprocess.Popen[str]) -> None:
        """Wait until the session's temporary folder holds something of this name."""
        until_s = time.monotonic() + 60
        while not any(self.scratch.glob(pattern)):
            if session.poll() is not None or time.monotonic() > until_s:
                pytest.fail(f"no {pattern}; the session ends with {session.poll()}")
            time.sleep(0.01)

    def left_behind(self) -> list[str]:
        """Return what sessions left where they should have left nothing."""
        worktrees = self.git("worktree", "list", "--porcelain").count("worktree ") - 1
        left = [str(path) for path in self.scratch.glob("perfsuite-*")]
        left += [f"{worktrees} worktrees"] * bool(worktrees)
        return left + self.processes()

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
        until_s = time.monotonic() + 30
        while self.processes():
            if time.monotonic() > until_s:
                pytest.fail(f"still there: {self.processes()}")
            time.sleep(0.1)


def saved(path: Path) -> Any:
    """Return what was saved with --benchmark-json."""
    return json.loads(path.read_text(encoding="utf-8"))
