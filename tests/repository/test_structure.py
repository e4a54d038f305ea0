"""The structure of the house: imports run one way, and every name has one meaning."""

import ast
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from imported_names import imported

import perfsuite
import perfsuite.benchmarks

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
    "bisecting",
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
    "bisecting",
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
TRAINS = ("session.one_tree", "session.measured_on", "session.together", "against.worker")
# These name what trains, and are loaded by what does.
BESIDE = (
    *("against.tries", "session.declaring", "session.fresh_process"),
    *("session.rank_watch", "session.repeating"),
)


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


def test_nothing_that_they_import_needs_pytorch_either() -> None:
    spared = (*TRAINS, *BESIDE, "__main__")
    names = [
        f"perfsuite.{module}"
        for module in MODULES
        if module.partition(".")[0] in WITHOUT_TORCH and not module.startswith(spared)
    ]
    program = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        "    if 'torch' in sys.modules: sys.exit(f'{name} has imported torch')\n"
    )
    command = [sys.executable, "-c", program, *names]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


ACCELERATORS = {"cuda", "is_cuda", "cudnn", "hip", "mps", "pynvml", "xpu", "rocm"}


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


def kinds(path: Path) -> set[str]:
    """Return the names of a module's classes and types; an underscore before is no other name."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef):
            found.add(node.name.lstrip("_"))
        elif isinstance(node, ast.Assign) and not isinstance(node.value, ast.Call):
            names = [each.id.lstrip("_") for each in node.targets if isinstance(each, ast.Name)]
            found |= {name for name in names if name[:1].isupper() and not name.isupper()}
    return found


def test_no_class_name_stands_for_two_kinds() -> None:
    folders = [ROOT / name for name in ("perfsuite", "studies", "tools", "tests")]
    paths = [path for path in repository() if {*folders} & set(path.parents)]
    names = Counter(name for path in paths for name in kinds(path))
    assert {name for name, count in names.items() if count > 1} == set()


@pytest.mark.parametrize(
    "path",
    repository(),
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_a_file_is_read_in_five_minutes(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300
