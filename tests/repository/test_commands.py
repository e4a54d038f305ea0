"""Every command that a page shows is run, as it stands there."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import first_table
import projects
import pytest
from documents import DOCS, PAGES, ROOT, blocks, text_of

BY_CI = ("make bench", "make test")
BY_A_NEW_USER = "pip install"  # .ci/wheel-test does, with the wheel
STARTS = "perfsuite init"

# A step takes as long as it says, on a clock of its own: a real one may stall on a busy machine.
MYNET = """
NOW_S = [0.0]


def step(batch):
    NOW_S[0] += 0.002
"""
SUITE = """
from itertools import repeat

import mynet
import torch

from perfsuite.devices.cpu import HostClock
from perfsuite.measuring import bench
from perfsuite.training.arm import Arm

bench.read_cpu_use = lambda: None  # whatever else the machine does while the tests run


def test_step_time(perf, precision):
    perf.clock = HostClock(lambda: mynet.NOW_S[0])
    batches = repeat(torch.empty(1))
    arm = Arm(precision=precision, step=mynet.step, batches=batches, device=perf.device)
    blocks = perf.time(perf.warm(arm), blocks=4)
    perf.metric("step_s", min(block.step_s for block in blocks), unit="s", better="lower")
"""
IGNORED = """
__pycache__/
.pytest_cache/
.benchmarks/
.venv
/tools/
/run*.json
/report/
/compared/
/night/
/history.svg
"""
OPTIONS = (
    "--perf-device=cpu --perf-data=synthetic --benchmark-autosave -p no:hypothesispytest -k fp32"
)
SETTINGS = {"PYTEST_ADDOPTS": OPTIONS, "PYTHONDONTWRITEBYTECODE": "1"}


def commands_in(block: str) -> list[str]:
    found = re.findall(r"^\$ (.+?)(?:\s+#.*)?$", block, flags=re.MULTILINE)
    return [each for each in found if not each.startswith((*BY_CI, BY_A_NEW_USER))]


def shells() -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Return the commands of each page: in a project with a suite, and in a new one."""
    suites: dict[str, list[str]] = {}
    new: dict[str, list[str]] = {}
    seen: set[str] = set()
    for page in PAGES:
        for block in blocks(page, "console"):
            commands = commands_in(block) if block not in seen else []
            seen.add(block)
            if STARTS in commands:
                assert page.stem not in new, "a page starts one project"
                new[page.stem] = commands
            elif commands:
                suites.setdefault(page.stem, []).extend(commands)
    return suites, new


IN_A_SUITE, IN_A_NEW_PROJECT = shells()
# A night is judged by a baseline: the first run of that page, made one.
BEFORE = {"nightly": IN_A_SUITE["baselines"][:4]}


def run(commands: list[str], project: projects.Project) -> str:
    (project.folder / ".venv").symlink_to(sys.prefix)
    # The baseline that they promote is a CPU's, whatever else the machine has.
    given = [re.sub("-device[ =]cuda", "-device cpu", each) for each in commands]
    given = ["set -e", "source .venv/bin/activate", *given, "echo all ran"]
    done = subprocess.run(
        ["bash", "-c", "\n".join(given)],
        cwd=project.folder,
        env=project.environment | SETTINGS,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=600,  # that of a machine with other work; it ends what hangs
    )
    assert done.returncode == 0, done.stdout
    assert done.stdout.endswith("all ran\n")
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("page", IN_A_SUITE)
def test_every_command_runs(page: str, tmp_path: Path) -> None:
    project = projects.Project(tmp_path)
    for name in ("test_speed.py", "conftest.py"):
        (project.folder / "benchmarks" / name).unlink()
    project.write("src/mynet/__init__.py", MYNET)
    project.write("benchmarks/test_step_time.py", SUITE)
    project.write(".gitignore", IGNORED)
    project.git("config", "user.name", "tests")
    project.git("config", "user.email", "tests@example.invalid")
    project.commit()
    shutil.copytree(ROOT / "tools", project.folder / "tools")
    run([*BEFORE.get(page, []), *IN_A_SUITE[page]], project)


@pytest.mark.slow
def test_a_new_user_gets_as_far_as_a_verdict(tmp_path: Path) -> None:
    project = projects.Project(tmp_path)
    shutil.rmtree(project.folder / "benchmarks")
    printed = run(IN_A_NEW_PROJECT["start"], project)
    # The page's table is of such a session: the same gates of each benchmark that ran here.
    shown = text_of(DOCS / "start.md").partition(first_table.BEGIN)[2].partition(first_table.END)[0]
    rows = re.findall(r"^[A-Z ]+ +(\w+\[fp32\] \w+)", shown, re.MULTILINE)
    assert len(rows) > 1
    assert [row for row in rows if row not in printed] == [], printed


def test_the_commands_are_found() -> None:
    assert {"README", "before-after", "baselines", "nightly", "start"} == IN_A_SUITE.keys()
    assert {"README", "start"} == IN_A_NEW_PROJECT.keys()
    assert IN_A_NEW_PROJECT["README"] == IN_A_NEW_PROJECT["start"]
    found = [each for commands in IN_A_SUITE.values() for each in commands]
    assert sum("--perf-against" in each for each in found) > 2
    assert len(found) > 12


@pytest.mark.parametrize("language", ["bash", "sh", "shell", "python3", "py", "pycon"])
def test_no_command_or_snippet_hides_behind_another_fence(language: str) -> None:
    assert [page.name for page in PAGES if blocks(page, language)] == []
