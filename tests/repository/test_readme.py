"""Every command of README.md is run, as it stands there, and every link leads somewhere."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import projects
import pytest
import torch

import perfsuite
from perfsuite.judging.thresholds import load_thresholds
from perfsuite.training.cfg import TUTORIAL_CFG, scale_width

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^\$ (.+)$", README, flags=re.MULTILINE)
BY_CI = ("make bench", "make test")

# A step takes as long as it says, on a clock of its own: a real one may stall on a busy machine.
MYNET = """
NOW_S = [0.0]


def step(images, labels):
    NOW_S[0] += 0.002
"""
SUITE = """
from itertools import repeat

import mynet
import torch

from perfsuite.devices.cpu import HostClock
from perfsuite.training.workload import Arm


def test_step_time(perf, precision):
    perf.clock = HostClock(lambda: mynet.NOW_S[0])
    order = repeat((torch.empty(1), torch.empty(1)))
    arm = Arm(precision=precision, step=mynet.step, order=order, restore=lambda: None)
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
ACTIVATE, *OTHERS = [each for each in COMMANDS if not each.startswith(BY_CI)]
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


WORKLOAD_MODEL = """
from torch import nn


def build_my_model():
    return nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 10))


"""
AROUND = """
import torch

torch.set_num_threads(1)
images, labels = torch.rand(4, 1, 28, 28), torch.arange(4)
"""
MAKE_STEP = """

def make_step(precision):
    torch.manual_seed(0)
    model = build_model(TUTORIAL_CFG)
    return TrainStep(model, torch.optim.Adam(model.parameters(), fused=True), precision=precision)

"""


def test_the_snippets_run(monkeypatch: pytest.MonkeyPatch) -> None:
    # An eighth of the width: the whole network takes seconds a step on a CPU.
    monkeypatch.setattr(perfsuite, "TUTORIAL_CFG", scale_width(TUTORIAL_CFG, 8))
    workload, step, probes = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    names: dict[str, object] = {}
    exec(WORKLOAD_MODEL + workload, names)
    # A fixture is called by pytest alone; what it returns is what counts.
    mine = names["workload"]._get_wrapped_function()()  # type: ignore[attr-defined]  # pytest's
    assert mine.name == "mine"
    assert mine.make_model()(torch.rand(2, 1, 28, 28)).shape == (2, 10)
    if not torch.cuda.is_available():  # and fp16 takes a minute on a CPU
        step = step.replace(".cuda()", "").replace("fp16", "bf16")
        probes = probes.replace("fp16", "bf16").replace("in PROBES:", "in PROBES[:2]:")
    exec(AROUND + step, names)
    assert names["loss"].isfinite()  # type: ignore[attr-defined]  # a tensor
    exec(AROUND + "from perfsuite import *\n" + MAKE_STEP + probes, names)
