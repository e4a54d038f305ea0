"""Every command of README.md is run, as it stands there, and every link leads somewhere."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import projects
import pytest

from perfsuite.judging.thresholds import load_thresholds

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^\$ (.+)$", README, flags=re.MULTILINE)
BY_CI = ("make bench", "make test")
BY_A_NEW_USER = ("pip install", "perfsuite init")  # see tests/test_starting.py

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
from perfsuite.training.arm import Arm


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


# What is no business of CI, in two shells that need not wait for each other.
ACTIVATE, *OTHERS = [each for each in COMMANDS if not each.startswith(BY_CI + BY_A_NEW_USER)]
COMPARISONS = [each for each in OTHERS if "--perf-against" in each]
REST = [each for each in OTHERS if each not in COMPARISONS]


@pytest.mark.slow
@pytest.mark.parametrize("commands", [COMPARISONS, REST], ids=["comparisons", "rest"])
def test_every_command_runs(commands: list[str], tmp_path: Path) -> None:
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
    (project.folder / ".venv").symlink_to(sys.prefix)
    # The baseline that they promote is a CPU's, whatever else the machine has.
    given = [each.replace("--device cuda", "--device cpu") for each in (ACTIVATE, *commands)]
    done = subprocess.run(
        ["bash", "-c", "\n".join(["set -e", *given, "echo all ran"])],
        cwd=project.folder,
        env=project.environment | {"PYTEST_ADDOPTS": OPTIONS, "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=600,  # that of a machine with other work; it ends what hangs
    )
    assert done.returncode == 0, done.stdout
    assert done.stdout.endswith("all ran\n")


def test_the_commands_are_found() -> None:
    assert ACTIVATE == "source .venv/bin/activate"
    assert len(COMPARISONS) > 1
    assert len(REST) > 9


def test_the_two_commands_are_what_ci_runs() -> None:
    steps = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert set(BY_CI) <= set(steps)
    assert set(BY_CI) <= {re.split(r"\s+#", command)[0] for command in COMMANDS}


def test_every_recipe_that_is_named_is_one() -> None:
    recipes = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    texts = README + (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`make\s([a-z-]+)|^\$ make ([a-z-]+)", texts, re.MULTILINE))
    assert {one or other for one, other in named} <= recipes
    assert len(named) > 5


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_every_link_leads_somewhere(page: str) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", (ROOT / page).read_text(encoding="utf-8"))
    lost = [link for link in links if "://" not in link and not (ROOT / link).exists()]
    assert lost == []


def test_the_thresholds_that_are_shown_are_valid(tmp_path: Path) -> None:
    (shown,) = re.findall(r"```toml\n(.*?)```", README, flags=re.DOTALL)
    path = tmp_path / "thresholds.toml"
    defaults = (ROOT / "benchmarks" / "thresholds.toml").read_text(encoding="utf-8")
    path.write_text(defaults[: defaults.index("\n[hardware.")] + shown, encoding="utf-8")
    found = load_thresholds(path, "nvidia-h200-x1")
    assert found.amp_speedup.minimum("bf16", "fp32") == 1.5
    assert found.warn == ("loader",)
    assert load_thresholds(path, "nvidia-h100-x1").warn == ()


def test_every_option_is_told(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--help"],
        cwd=tmp_path,  # without the conftest.py of these tests, which imports torch
        capture_output=True,
        text=True,
        check=True,
    )
    options = set(re.findall(r"--perf-[a-z-]+", done.stdout))
    assert options == set(re.findall(r"`(--perf-[a-z-]+)", README))


MINE = """
import torch
from torch import nn


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 10))

    def forward(self, images):
        return self.layers(images)


build_model = Model


def load_batches(seed):
    draw = torch.Generator().manual_seed(seed)
    return [{"image": torch.rand(8, 1, 28, 28, generator=draw), "label": torch.arange(8)}]
"""


@pytest.mark.slow
def test_the_snippets_run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("PYTEST_XDIST")]:
        monkeypatch.delenv(name)
    workload, compare = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    pytester.makepyfile(mine=MINE, conftest=workload)
    ones = "import torch\n\nold_kernel = new_kernel = torch.exp\nx = torch.ones(1000)\n\n\n"
    pytester.makepyfile(test_kernel=ones + compare.replace("minimum=1.1", "minimum=0.01"))
    pytester.makepyfile(test_probes="from perfsuite.benchmarks import test_amp_probes\n")
    result = pytester.runpytest_subprocess("--perf-device=cpu", "--perf-budget=1")
    assert result.ret == 0, result.stdout.str()
    result.stdout.fnmatch_lines(["PASS *probes*fp32* 15 probes passed*"])
