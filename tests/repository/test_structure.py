"""The structure of the house: imports run one way, and every name has one meaning."""

import ast
import re
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

import perfsuite
import perfsuite.benchmarks
from perfsuite.__main__ import main

PACKAGE = Path(perfsuite.__file__).parent
ROOT = PACKAGE.parent

# Ground floor first: a package imports only from those before it, and from itself.
FLOORS = (
    "judging",
    "records",
    "report",
    "devices",
    "training",
    "measuring",
    "probes",
    "adapters",
    "session",
    "against",
    "starting",
    "plugin",
    "__main__",
    "__init__",
    "benchmarks",
)
WITHOUT_TORCH = (
    "judging",
    "records",
    "report",
    "session",
    "against",
    "starting",
    "plugin",
    "__main__",
)
WITHOUT_PYTEST = (
    *("judging", "records", "report"),
    *("devices", "training", "measuring", "probes", "adapters"),
)
# The process of a side, and what it shares with a session of one tree, train; and so does the
# session of one tree, which is loaded only once there is something to train.
TRAINS = ("session.one_tree", "against.worker")


def modules() -> dict[str, Path]:
    """Return the files of the package by their dotted names within it."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts[-1] == "__init__" and len(parts) > 1:
            parts = parts[:-1]
        found[".".join(parts)] = path
    return found


MODULES = modules()


@cache
def imported(path: Path) -> frozenset[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
    return frozenset(names)


def ours(module: str) -> set[str]:
    """Return the modules of the package that a module imports."""
    names = {name.removeprefix("perfsuite.") for name in imported(MODULES[module])}
    return names & MODULES.keys() - {module}


def floor(module: str) -> int:
    return FLOORS.index(module.partition(".")[0])


def repository() -> list[Path]:
    """Return the Python files that git knows of, or would take."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "*.py"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    return [ROOT / name for name in filter(None, listed.split("\0")) if (ROOT / name).exists()]


def test_every_package_has_its_floor() -> None:
    assert {name.partition(".")[0] for name in MODULES} == set(FLOORS)


@pytest.mark.parametrize("module", MODULES)
def test_imports_do_not_lead_upwards(module: str) -> None:
    upwards = sorted(name for name in ours(module) if floor(name) > floor(module))
    assert upwards == []


@pytest.mark.parametrize("package", [name for name in FLOORS if (PACKAGE / name).is_dir()])
def test_no_modules_of_a_package_import_each_other(package: str) -> None:
    left = {name: ours(name) for name in MODULES if name.partition(".")[0] == package}
    while free := [name for name, needs in left.items() if not needs & left.keys()]:
        for name in free:
            del left[name]
    assert left == {}


@pytest.mark.parametrize(
    ("library", "packages"),
    [("torch", WITHOUT_TORCH), ("pytest", WITHOUT_PYTEST)],
    ids=["torch", "pytest"],
)
def test_packages_do_without_a_library(library: str, packages: tuple[str, ...]) -> None:
    users = [
        module
        for module, path in MODULES.items()
        if module.partition(".")[0] in packages
        and not (library == "torch" and module.startswith(TRAINS))
        and library in {name.partition(".")[0] for name in imported(path)}
    ]
    assert users == []


ACCELERATORS = {"cuda", "is_cuda", "cudnn", "hip", "mps", "pynvml", "xpu"}


def asks_which_accelerator(path: Path) -> list[str]:
    """Return the accelerators that a file's code names, apart from its comments and docstrings."""
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute):
            names.append(node.attr)
        elif isinstance(node, ast.Name):
            names.append(node.id)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names.append(node.value)
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    return [name for name in names if name in ACCELERATORS]


@pytest.mark.parametrize(
    "path",
    [
        *(path for name, path in MODULES.items() if not name.startswith("devices")),
        *sorted((ROOT / "benchmarks").glob("*.py")),
    ],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_only_the_devices_know_which_accelerator_there_is(path: Path) -> None:
    assert asks_which_accelerator(path) == []


def test_a_question_about_the_accelerator_would_be_found() -> None:
    assert set(asks_which_accelerator(PACKAGE / "devices" / "cuda.py")) >= {"cuda", "pynvml"}


def test_no_module_name_stands_for_two_modules() -> None:
    # Each example is a project of its own, and its suite is named as `perfsuite init` names it.
    suites = set(ROOT.glob("examples/*/benchmarks/*.py"))
    stems = Counter(path.stem for path in repository() if path not in suites)
    several = {stem for stem, count in stems.items() if count > 1}
    assert several <= {"__init__", "__main__", "conftest"}


def classes(path: Path) -> set[str]:
    """Return the names of a module's classes; an underscore before one is no other name."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name.lstrip("_") for node in tree.body if isinstance(node, ast.ClassDef)}


def test_no_class_name_stands_for_two_classes() -> None:
    folders = [ROOT / name for name in ("studies", "tools", "tests/repository", "tests/sabotage")]
    paths = [path for path in repository() if {PACKAGE, *folders} & set(path.parents)]
    names = Counter(name for path in paths for name in classes(path))
    assert {name for name, count in names.items() if count > 1} == set()


@pytest.mark.parametrize(
    "path",
    repository(),
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_a_file_is_read_in_five_minutes(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300


def test_public_names() -> None:
    assert sorted(perfsuite.__all__, key=lambda name: (not name.isupper(), name)) == [
        "PROBES",
        "TUTORIAL_CFG",
        "Arm",
        "Bench",
        "CfgError",
        "CheckedStep",
        "Duet",
        "Estimate",
        "Precision",
        "PrecisionError",
        "SeedPair",
        "TrainStep",
        "Training",
        "TrainingError",
        "TrainingRun",
        "Verdict",
        "Workload",
        "activation_bytes",
        "at_least",
        "at_most",
        "build_model",
        "doubled",
        "finite",
        "judge_probes",
        "judge_speedup",
        "judge_stalls",
        "judge_twice",
        "median_s",
        "mnist_folder",
        "mnist_loader",
        "run_probe",
        "train",
        "train_pairs",
        "tutorial_workload",
        "workload",
    ]
    assert all(hasattr(perfsuite, name) for name in perfsuite.__all__)
    assert dir(perfsuite) == sorted(perfsuite.__all__)


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda p: p.stem)
def test_a_benchmark_file_needs_public_names_alone(path: Path) -> None:
    assert {name for name in imported(path) if name.startswith("perfsuite")} <= {
        "perfsuite",
        "perfsuite.benchmarks",
        *(f"perfsuite.{name}" for name in perfsuite.__all__),
        *(f"perfsuite.benchmarks.{name}" for name in perfsuite.benchmarks.__all__),
    }


def test_options_of_pytest(pytestconfig: pytest.Config) -> None:
    options = {k: v for k, v in vars(pytestconfig.option).items() if k.startswith("perf_")}
    assert options == {
        "perf_device": "auto",
        "perf_workload": None,
        "perf_data": "mnist5k",
        "perf_budget": 60.0,
        "perf_report": None,
        "perf_against": None,
        "perf_against_python": None,
        "perf_history": None,
        "perf_confirm_python": None,
    }


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("init", {"DIR"}),
        ("promote", {"RUN.json", "--suite", "--replace", "--allow-dirty"}),
        ("history", {"DIR", "--hardware", "--output", "--max-age"}),
        ("advise", {"DIR", "--suite", "--hardware", "--budget", "--margin", "--write"}),
        ("report", {"RUN.json", "--output"}),
    ],
)
def test_options_of_the_commands(
    command: str, options: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    told = re.findall(
        r"^  (?:-\w(?: \S+)?, )?(--[a-z-]+|[A-Z][\w.]+)", capsys.readouterr().out, re.M
    )
    assert set(told) == options | {"--help"}


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        perfsuite.nothing  # noqa: B018  # the access is what is tested


def test_the_cfg_and_its_error_come_without_torch() -> None:
    code = (
        "import sys, perfsuite; perfsuite.TUTORIAL_CFG; perfsuite.CfgError;"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
