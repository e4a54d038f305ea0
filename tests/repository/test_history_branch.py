"""The branch that keeps the history: the scripts that add nights to it, and what reads them."""

import json
import os
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from test_workflows import ALIVE, BIN, NIGHTLY, ROOT, steps

RUN = ROOT / "docs" / "runs" / "cpu-amd-epyc-x2.json"


class Remote:
    """A repository that the scripts of a job fetch the history from and push it to."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.git("init", "--quiet", "--bare", "origin.git")

    def git(self, *arguments: str) -> str:
        who = ("-c", "user.name=tests", "-c", "user.email=tests@example.invalid")
        done = subprocess.run(
            ["git", *who, *arguments], cwd=self.home, check=True, capture_output=True, text=True
        )
        return done.stdout

    def script(self, job: str, name: str, night: str, *, path: Path = NIGHTLY) -> int:
        """Run a step's script as a night's runner would, without its waits; return its code."""
        (step,) = [step for step in steps(path, job) if step.get("name") == name]
        place = {
            "RUNNER_TEMP": str(self.home / night),
            "GITHUB_SERVER_URL": f"file://{self.home}",
            "GITHUB_REPOSITORY": "origin.git",
            "GITHUB_RUN_ID": night,
            "MAX_AGE": "3",
            "PYTHONPATH": ".",
            "PATH": f"{BIN}:{os.environ['PATH']}",
        }
        (self.home / night).mkdir(exist_ok=True)
        command = ["bash", "-eo", "pipefail", "-c", f"sleep() {{ :; }}\n{step['run']}"]
        environment = os.environ | place
        return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode

    def fetch(self, night: str, job: str = "history") -> Path:
        assert self.script(job, "Fetch the history, if there is one", night) == 0
        return self.home / night / "history"

    def append(self, night: str, content: str = "a run") -> None:
        folder = self.fetch(night)
        (folder / "cpu-a-x1").mkdir(exist_ok=True)
        (folder / "cpu-a-x1" / f"{night}.json").write_text(content, encoding="utf-8")

    def push(self, night: str) -> int:
        return self.script("history", "Push", night)

    def runs(self) -> list[str]:
        listed = self.git("-C", "origin.git", "ls-tree", "-r", "--name-only", "perf-history")
        return [Path(line).stem for line in listed.splitlines()]

    def nights(self) -> int:
        return int(self.git("-C", "origin.git", "rev-list", "--count", "perf-history"))


@pytest.fixture
def remote(tmp_path: Path) -> Remote:
    return Remote(tmp_path)


def test_nights_are_added_to_a_branch_of_their_own(remote: Remote) -> None:
    for night in ("one", "two"):
        remote.append(night)
        assert remote.push(night) == 0
    assert remote.runs() == ["one", "two"]
    assert remote.nights() == 2
    assert (remote.fetch("three", job="gate") / "cpu-a-x1" / "two.json").is_file()


def test_a_night_without_a_run_adds_nothing(remote: Remote) -> None:
    remote.append("one")
    assert remote.push("one") == 0
    remote.fetch("two")
    assert remote.push("two") == 0
    assert remote.nights() == 1


@pytest.mark.parametrize("before", [0, 1])
def test_two_nights_at_once_are_both_kept(remote: Remote, before: int) -> None:
    if before:
        remote.append("zero")
        assert remote.push("zero") == 0
    remote.append("one")
    remote.append("two")
    assert remote.push("one") == 0
    assert remote.push("two") == 0
    assert remote.runs() == ["one", "two", "zero"][: 2 + before]


def test_a_run_that_is_there_is_not_replaced(remote: Remote) -> None:
    remote.append("one", "first")
    (remote.home / "again").mkdir()
    folder = remote.fetch("again")
    (folder / "cpu-a-x1").mkdir()
    (folder / "cpu-a-x1" / "one.json").write_text("second", encoding="utf-8")
    assert remote.push("one") == 0
    assert remote.push("again") != 0
    assert remote.git("-C", "origin.git", "show", "perf-history:cpu-a-x1/one.json") == "first"


def test_a_push_that_never_gets_through_is_red(remote: Remote) -> None:
    remote.append("one")
    (remote.home / "origin.git").rename(remote.home / "gone.git")
    assert remote.push("one") != 0


def test_the_switch_reads_the_history_as_the_nights_keep_it(remote: Remote) -> None:
    def ask(night: str) -> int:
        fetch = "Fetch the history, if there is one"
        assert remote.script("alive", fetch, night, path=ALIVE) == 0
        return remote.script("alive", "Ask when anything was evaluated", night, path=ALIVE)

    assert ask("before") == 1
    for name, days, code in (("long ago", 9, 1), ("lately", 1, 0)):
        started = (datetime.now(UTC) - timedelta(days=days)).isoformat()
        document = json.loads(RUN.read_bytes())
        document["perfsuite"]["started"] = started
        remote.append(name, json.dumps(document))
        assert remote.push(name) == 0
        assert ask(f"after {name}") == code
