"""Imports run one way, and the public names are what they are said to be."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import perfsuite

PACKAGE = Path(perfsuite.__file__).parent

# Ground floor first. A module imports only from those before it; a new one needs its place here.
ORDER = (
    "cfg",
    "stats",
    "sampling",
    "block",
    "duet",
    "restarts",
    "gates",
    "thresholds",
    "files",
    "operators",
    "runs",
    "reasons",
    "history",
    "picture",
    "drawings",
    "evidence",
    "exhibit",
    "speed_exhibits",
    "training_exhibits",
    "environment",
    "page",
    "report",
    "checkout",
    "baseline",
    "summary",
    "progress",
    "replay",
    "collected",
    "saving",
    "ledger",
    "changes",
    "line",
    "trees",
    "sides",
    "stage",
    "pairing",
    "standins",
    "against",
    "model",
    "precision",
    "step",
    "data",
    "device",
    "state",
    "timing",
    "profiling",
    "workload",
    "memory",
    "convergence",
    "hostreads",
    "probe",
    "dtype_probes",
    "gradient_probes",
    "run_probes",
    "probes",
    "machine",
    "bench",
    "oneside",
    "session",
    "plugin",
    "serving",
    "boot",
    "__main__",
    "__init__",
)
WITHOUT_TORCH = ORDER[: ORDER.index("model")]
WITH_PYTEST = {
    "summary",
    "progress",
    "collected",
    "saving",
    "ledger",
    "standins",
    "against",
    "session",
    "oneside",
    "plugin",
    "serving",
}
WITHOUT_PYTEST = tuple(name for name in ORDER if name not in WITH_PYTEST)


def imported(module: str) -> set[str]:
    tree = ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
        elif isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
    return names


def test_every_module_is_on_the_map() -> None:
    contributing = (PACKAGE.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = contributing[contributing.index("| what |") : contributing.index("**A benchmark**")]
    assert set(re.findall(r"`([a-z_]+)`", table)) == set(ORDER) - {"__init__", "__main__"}


def test_every_module_has_its_place() -> None:
    assert {path.stem for path in PACKAGE.glob("*.py")} == set(ORDER)


@pytest.mark.parametrize("module", ORDER)
def test_a_module_imports_only_from_those_before_it(module: str) -> None:
    ours = {name.partition(".")[2] for name in imported(module) if name.startswith("perfsuite.")}
    assert ours <= set(ORDER[: ORDER.index(module)])


@pytest.mark.parametrize(
    ("package", "modules"),
    [("torch", WITHOUT_TORCH), ("pytest", WITHOUT_PYTEST)],
    ids=["torch", "pytest"],
)
def test_a_floor_does_without(package: str, modules: tuple[str, ...]) -> None:
    users = [name for name in modules if package in {i.partition(".")[0] for i in imported(name)}]
    assert users == []


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*.py")), ids=lambda path: path.stem)
def test_a_file_is_read_in_five_minutes(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300


def test_public_names() -> None:
    assert perfsuite.__all__ == [
        "TUTORIAL_CFG",
        "CfgError",
        "Precision",
        "PrecisionError",
        "TrainStep",
        "Workload",
        "build_model",
    ]
    assert all(hasattr(perfsuite, name) for name in perfsuite.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        perfsuite.nothing  # noqa: B018  # the access is what is tested


def test_the_cfg_and_its_error_come_without_torch() -> None:
    code = (
        "import sys, perfsuite; perfsuite.TUTORIAL_CFG; perfsuite.CfgError;"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
