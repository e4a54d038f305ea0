"""A bisection from end to end, by counts, which are the same on any machine."""

import subprocess
import sys
from pathlib import Path

import pytest
from projects import CONFTEST, MYNET, Project, Result

from perfsuite.__main__ import main

pytestmark = pytest.mark.slow

LEDGER = """
import dataclasses

import mynet
import torch

import perfsuite


def test_ledger(perf):
    def step(batch):
        for _ in range(mynet.PRODUCTS):
            batch = batch @ batch
        return batch.sum()

    perf.timed([1.0])
    counted = perfsuite.count_step(perf.plain(step, [torch.ones(2, 2)]))
    perf.keep("ledger", dataclasses.asdict(counted))
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("bisected"))
    project.write(".gitignore", "__pycache__/\n.benchmarks/\n")
    code = "src/mynet/__init__.py"
    for number, (name, text) in enumerate(
        [
            (code, f"{MYNET}PRODUCTS = 2\n"),
            (code, "raise ImportError('half a change')\n"),
            (code, f"{MYNET}PRODUCTS = 1 + 1\n"),
            ("README.md", "prose\n"),
            (code, f"{MYNET}PRODUCTS = 5\n"),
        ],
        start=1,
    ):
        project.write(name, text)
        project.git("add", "--all")
        project.git("commit", "--quiet", f"--message=change {number}")
    # Newer than all of them, and not committed: a renamed benchmark is searched as well.
    project.write("benchmarks/conftest.py", CONFTEST)
    project.write("benchmarks/test_counts.py", LEDGER)
    return project


def bisect(project: Project, *arguments: str) -> Result:
    command = [sys.executable, "-m", "perfsuite", "bisect", *arguments]
    done = subprocess.run(
        [*command, "--perf-device=cpu", "--perf-data=synthetic", "-pno:hypothesispytest"],
        cwd=project.folder,
        env=project.environment,
        check=False,
        capture_output=True,
        text=True,
        timeout=600,
    )
    return Result(done.returncode, done.stdout + done.stderr)


def test_the_commit_is_named_and_nothing_else_is_touched(project: Project) -> None:
    before = project.git("status", "--porcelain"), project.git("rev-parse", "HEAD")
    result = bisect(project, "HEAD~4", "-k", "ledger", f"--output={project.home / 'out'}")
    result.ends_with(0)
    result.line("counts change at", "change 5")
    result.line("+3 forward: mm")
    result.line("1 commit of 4 touches nothing that it imports")
    result.line("skipped", "change 2", "ImportError: half a change")
    result.line("uncommitted changes are not searched")
    assert "counts change at" in (project.home / "out" / "bisect.md").read_text("utf-8")
    assert (project.git("status", "--porcelain"), project.git("rev-parse", "HEAD")) == before
    assert len(list((project.folder / ".benchmarks").glob("bisect-*.jsonl"))) == 1
    assert project.left_behind() == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gone"], "'gone' is no commit, branch or tag of "),
        (["HEAD~1", "--benchmark-disable"], "perfsuite could not evaluate its gates"),
        (["HEAD~1", "--benchmark-skip"], "--benchmark-skip leaves nothing for a bisection"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_searched_is_refused_in_one_line(
    project: Project, arguments: list[str], message: str
) -> None:
    result = bisect(project, *arguments)
    result.ends_with(4)
    result.line(message)


def test_a_folder_that_is_none_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bisect", "HEAD", f"--suite={tmp_path / 'gone'}"]) == 1
    assert "no folder of benchmarks; name it with --suite" in capsys.readouterr().err
