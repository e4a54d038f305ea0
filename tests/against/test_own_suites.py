"""Nights of a project that keeps its code in the suite: each side is measured with its own suite.

All there is stands in conftest.py, where time passes only as its steps say.
"""

import shutil
from pathlib import Path

import pytest
from projects import Project, Result, git_in, night, night_like

from perfsuite.against.own_suites import installed_instead
from perfsuite.records.promotion import promote

CONFTEST = """
import os

import pytest

from perfsuite.devices.cpu import HostClock
from perfsuite.measuring import bench

bench.read_cpu_use = lambda: None  # whatever else the machine does while the tests run

NIGHT = float(os.environ.get("NIGHT", "1"))
SLOWED_S, FOUND = 0.2, 1
now_s = 0.0


@pytest.fixture
def timed(perf):
    def timed(seconds):
        def step():
            global now_s
            now_s += seconds * NIGHT

        arm = perf.plain(step, label="fp32")
        perf.clock = HostClock(lambda: now_s)
        blocks = perf.time(perf.warm(arm), blocks=4)
        perf.metric("step_s", min(b.step_s for b in blocks), unit="s", better="lower")

    return timed


@pytest.fixture
def slowed_s():
    return SLOWED_S


@pytest.fixture
def doublings(perf):
    # As `busy_doublings` does, which on a CPU has nothing to look for.
    found = perf.promoted.get("doublings", FOUND)
    perf.configure(doublings=found)
    return found
"""

BENCHMARKS = """
def test_same(timed):
    timed(0.2)


def test_slowed(timed, slowed_s):
    timed(slowed_s)


def test_batch(timed, doublings):
    timed(0.1 * 2**doublings)


def test_deep(timed):
    import deepnet

    timed(deepnet.STEP_S)
"""

NEW = "def test_new(timed):\n    timed(0.2)\n"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Return a project with promoted runs, of which one file was never committed."""
    project = Project(tmp_path_factory.mktemp("own"))
    project.write("benchmarks/conftest.py", CONFTEST)
    project.write("benchmarks/test_speed.py", BENCHMARKS)
    # Deeper in the tree than one would look for it, and installed as a copy.
    deepnet = project.write("libs/net/deepnet/__init__.py", "STEP_S = 0.2\n")
    project.write("libs/net/pyproject.toml", "[project]\n")
    shutil.copytree(deepnet.parent, project.home / "site" / "deepnet")
    project.environment["PYTHONPATH"] = str(project.home / "site")
    project.commit()
    project.write("benchmarks/test_new.py", NEW)
    recorded = project.home / "run.json"
    project.run(f"--benchmark-json={recorded}").ends_with(0)
    runs = [night_like(recorded, factor) for factor in (0.97, 1.0, 1.03)]
    promote(runs, project.folder / "benchmarks")
    changed = CONFTEST.replace("SLOWED_S, FOUND = 0.2, 1", "SLOWED_S, FOUND = 0.24, 2")
    project.write("benchmarks/conftest.py", changed)
    return project


@pytest.fixture(scope="module")
def result(project: Project) -> Result:
    """Return a night on which all is suspected."""
    return night(project, 1.05, "-v").part(" perfsuite ", " short test summary ")


@pytest.mark.slow
def test_a_change_of_the_suite_s_own_code_is_confirmed(result: Result) -> None:
    result.line("  slowed compare step_s", "SLOWER", "1.200x [1.200, 1.200]")


@pytest.mark.slow
def test_code_of_the_suite_that_did_not_change_is_cleared(result: Result) -> None:
    result.line("  same compare step_s", "SAME", "1.000x [1.000, 1.000]")


@pytest.mark.slow
def test_both_sides_take_the_batch_that_was_promoted(result: Result) -> None:
    result.line("  batch compare step_s", "SAME", "1.000x [1.000, 1.000]", "(210 ms -> 210 ms)")


@pytest.mark.slow
def test_what_the_promoted_commit_has_not_is_not_confirmed(result: Result) -> None:
    result.line("  new compare step_s", "INCONCLUSIVE")
    result.line("not confirmed: the promoted commit: it has no such benchmark; promote runs of a")


@pytest.mark.slow
def test_a_package_is_not_compared_with_its_installed_self(result: Result) -> None:
    result.line("  deep compare step_s", "INCONCLUSIVE")
    why = "libs/net/deepnet/__init__.py: imported from where it is installed"
    result.line(f"not confirmed: not two trees: {why}; install the project in editable mode")


@pytest.mark.slow
def test_files_that_the_promoted_commit_has_not_are_told(project: Project) -> None:
    project.environment["NIGHT"] = "1.05"
    result = project.run("--benchmark-compare", suite="benchmarks/test_new.py")
    result.ends_with(1)
    why = "before: it has no benchmarks/test_new.py: promote runs of a commit that has"
    result.line(f"what was suspected could not be confirmed: {why}")
    assert project.left_behind() == []


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Return a tree with packages where one looks for them, deeper, and in its suite."""
    names = (
        "src/mynet/__init__.py",
        "libs/net/setup.py",
        "libs/net/deepnet/__init__.py",
        "libs/net/deepnet/torch.py",
        "libs/setup.cfg",
        "libs/python/single.py",
        "libs/python/logging.py",
        "code/of/mine/__init__.py",
        "vendor/tqdm/__init__.py",
        "perf/__init__.py",
        "perf/benchmarks/torch/__init__.py",
    )
    git_in(tmp_path, "init", "--quiet")
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "pyproject.toml").write_text('where = ["code/of"]\n', encoding="utf-8")
    git_in(tmp_path, "add", "--all")
    return tmp_path


@pytest.mark.parametrize(
    ("files", "neither", "strays"),
    [
        (["perf/benchmarks/net.py"], ["deepnet", "torch"], "libs/net/deepnet/__init__.py"),
        (["conftest.py", "perf/__init__.py"], ["single", "logging"], "libs/python/single.py"),
        (["conftest.py"], ["mine"], "code/of/mine/__init__.py"),
        (["conftest.py"], ["tqdm"], None),  # a copy of a library, which nothing here builds
        (["perf/benchmarks/net.py"], ["torch", "logging", "numpy"], None),
        (["perf/benchmarks/net.py", "src/mynet/__init__.py"], ["deepnet"], None),
    ],
)
def test_where_all_came_from_the_suite_the_tree_is_searched_for_what_is_installed(
    tree: Path, files: list[str], neither: list[str], strays: str | None
) -> None:
    loaded = {"files": files, "neither": neither}
    why = None if strays is None else f"{strays}: imported from where it is installed"
    assert installed_instead(loaded, tree, tree / "perf" / "benchmarks") == why
