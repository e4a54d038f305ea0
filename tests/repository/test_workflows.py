"""The workflows: what keeps them safe, that they call what is there, and their scripts, run."""

import importlib
import json
import re
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
NIGHTLY, ALIVE, TESTS = (
    ROOT / ".github" / "workflows" / f"{name}.yml"
    for name in ("nightly-gpu", "nightly-alive", "tests")
)
HOSTED = {"ubuntu-24.04"}
DEFAULTS = {"runners": [["self-hosted", "gpu"]], "torch": [""]}

of_each = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)


def read(path: Path) -> dict[str, Any]:
    # The base loader leaves every scalar a string: to the others `on` is true.
    loaded = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    assert isinstance(loaded, dict)
    return loaded


def steps(path: Path, job: str | None = None) -> list[dict[str, Any]]:
    jobs = read(path)["jobs"]
    return [step for name, each in jobs.items() if job in (None, name) for step in each["steps"]]


def scripts(path: Path) -> list[str]:
    return [step["run"] for step in steps(path) if "run" in step]


def test_these_are_all() -> None:
    assert {NIGHTLY, ALIVE, TESTS} == set(WORKFLOWS)
    assert set(NIGHTLY.parent.iterdir()) == set(WORKFLOWS)


@of_each
def test_every_action_is_pinned(path: Path) -> None:
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if "uses:" in line]
    assert len(lines) == sum("uses" in step for step in steps(path)) > 0
    for line in lines:
        assert re.search(r"uses: [a-z-]+/[a-z-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$", line)


def test_an_action_is_pinned_alike_everywhere() -> None:
    uses = {step["uses"] for path in WORKFLOWS for step in steps(path) if "uses" in step}
    assert len({use.partition("@")[0] for use in uses}) == len(uses)


@of_each
def test_rights_are_given_job_by_job(path: Path) -> None:
    workflow = read(path)
    assert workflow["permissions"] == {}
    assert all("permissions" in job for job in workflow["jobs"].values())
    assert all("timeout-minutes" in job for job in workflow["jobs"].values())


def test_only_two_jobs_of_the_night_may_write() -> None:
    rights = {name: job["permissions"] for name, job in read(NIGHTLY)["jobs"].items()}
    assert rights == {
        "gate": {"contents": "read"},
        "history": {"contents": "write"},
        "issue": {"contents": "read", "issues": "write"},
    }


@of_each
def test_no_pull_request_runs_on_machines_of_ones_own(path: Path) -> None:
    workflow = read(path)
    if {job["runs-on"] for job in workflow["jobs"].values()} <= HOSTED:
        assert "pull_request_target" not in workflow["on"]
    else:
        assert workflow["on"].keys() == {"schedule", "workflow_dispatch"}


@of_each
def test_nothing_is_pasted_into_a_script(path: Path) -> None:
    assert scripts(path)
    assert not [script for script in scripts(path) if "${{" in script]


@of_each
def test_no_credentials_are_left_in_a_checkout(path: Path) -> None:
    found = [step for step in steps(path) if "actions/checkout" in step.get("uses", "")]
    assert found
    assert all(step["with"]["persist-credentials"] == "false" for step in found)


@of_each
def test_what_a_script_calls_is_there(path: Path) -> None:
    words = [word for script in scripts(path) for word in shlex.split(script)]
    called = [word for word in words if word.startswith(("tools/", ".ci/"))]
    assert all((ROOT / word).is_file() for word in called)
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    asked = [after for word, after in pairwise(words) if word == "make"]
    assert asked or path == ALIVE
    assert set(asked) <= set(targets)


@pytest.mark.parametrize("tool", ["nightly", "red_issue"])
def test_the_options_that_a_script_gives_are_understood(tool: str) -> None:
    parse = importlib.import_module(tool)._parse
    lines = [line for script in scripts(NIGHTLY) for line in script.splitlines()]
    asked = [
        line.partition(f"tools/{tool}.py ")[2] for line in lines if f"tools/{tool}.py " in line
    ]
    assert len(asked) == {"nightly": 3, "red_issue": 1}[tool]
    for arguments in asked:
        parse(shlex.split(arguments))  # ends the test with SystemExit where it does not


def test_both_jobs_know_the_same_legs() -> None:
    jobs = read(NIGHTLY)["jobs"]
    matrix = jobs["gate"]["strategy"]["matrix"]
    (told,) = [step["env"] for step in jobs["issue"]["steps"] if "RUNNERS" in step.get("env", {})]
    for axis, name, variable in (("runner", "runners", "RUNNERS"), ("torch", "torch", "TORCH")):
        inside = re.fullmatch(r"\$\{\{ fromJSON\((.+)\) \}\}", matrix[axis])
        assert inside is not None
        assert told[variable] == f"${{{{ {inside[1]} }}}}"
        given, variables, default = inside[1].split(" || ")
        assert (given, variables) == (f"inputs.{name}", f"vars.PERF_{variable}")
        assert json.loads(default.strip("'")) == DEFAULTS[name]


@pytest.mark.parametrize(
    ("path", "job", "modules"),
    [
        (NIGHTLY, "history", "nightly"),
        (ALIVE, "alive", "perfsuite.__main__, perfsuite.records.liveness"),
    ],
    ids=["history", "alive"],
)
def test_a_job_that_reads_runs_installs_what_it_needs_and_no_more(
    path: Path, job: str, modules: str
) -> None:
    (script,) = [step["run"] for step in steps(path, job) if "pip" in step.get("run", "")]
    installed = {word for word in shlex.split(script)[4:] if not word.startswith("-")}
    code = (
        f"import sys; sys.path.insert(0, 'tools'); before = set(sys.modules); import {modules};"
        "new = [sys.modules[name] for name in set(sys.modules) - before];"
        "files = [getattr(module, '__file__', None) or '' for module in new];"
        "rest = [file.partition('/site-packages/')[2] for file in files];"
        "print(*{file.partition('/')[0].partition('.')[0] for file in rest if file})"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    # msgspec takes the one, and numpy the other, where they are there.
    optional = {"typing_extensions", "charset_normalizer"}
    assert set(done.stdout.split()) - optional == installed


def test_what_is_tried_out_on_a_branch_is_not_told() -> None:
    jobs = read(NIGHTLY)["jobs"]
    for name in ("history", "issue"):
        default = "github.ref_name == github.event.repository.default_branch"
        # A schedule is always of the default branch, and its event may hold no repository.
        assert jobs[name]["if"] == f"always() && (github.event_name == 'schedule' || {default})"
    assert read(TESTS)["on"]["push"]["branches"] == ["main"]


# Linters. Each is also shown a fault, as one that reads nothing finds nothing.

JACTIONLINT = ("jactionlint", "--strict-exit", f"--shellcheck={BIN / 'shellcheck'}")
ZIZMOR = ("zizmor", "--offline", "--strict-collection")


def lint(command: tuple[str, ...], path: Path) -> "subprocess.CompletedProcess[str]":
    tool, *options = command
    return subprocess.run(
        [str(BIN / tool), *options, str(path)], check=False, capture_output=True, text=True
    )


@pytest.mark.parametrize("command", [JACTIONLINT, ZIZMOR], ids=["jactionlint", "zizmor"])
@of_each
def test_linters_find_nothing(command: tuple[str, ...], path: Path) -> None:
    done = lint(command, path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("command", "old", "new", "finding"),
    [
        (JACTIONLINT, "needs: gate", "needs: gates", "gates"),
        (JACTIONLINT, '"$RUNNERS"', "$RUNNERS", "SC2086"),
        (ZIZMOR, 'torch "$TORCH"', "torch ${{ inputs.torch }}", "template-injection"),
        (ZIZMOR, "jobs:", "jobs: [", "no audit was performed"),
    ],
)
def test_linters_find_what_is_there(
    tmp_path: Path, command: tuple[str, ...], old: str, new: str, finding: str
) -> None:
    folder = tmp_path / ".github" / "workflows"
    folder.mkdir(parents=True)
    text = NIGHTLY.read_text(encoding="utf-8")
    assert old in text
    faulty = folder / NIGHTLY.name
    faulty.write_text(text.replace(old, new), encoding="utf-8")
    done = lint(command, faulty)
    assert done.returncode != 0
    assert finding in done.stdout + done.stderr
