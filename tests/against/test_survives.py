"""--perf-against survives what it meets: interruptions, hangs, submodules, other sessions."""

import signal
import sys
import time
import venv
from pathlib import Path

import pytest
from projects import BENCHMARK, MYNET, THRESHOLDS, Project

FOREVER = """
import time

import mynet


def test_step(timed, tmp_path):
    timed(lambda: time.sleep(1000))
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.mark.parametrize(
    ("moment", "number"),
    [
        ("perfsuite-*/perfsuite-*", signal.SIGINT),
        ("perfsuite-*/after.log", signal.SIGINT),
        ("perfsuite-*/before-tmp", signal.SIGINT),
        ("perfsuite-*/before-tmp", signal.SIGTERM),
    ],
    ids=["checking-out", "starting", "measuring", "terminated"],
)
def test_it_is_ended_at_any_moment(project: Project, moment: str, number: signal.Signals) -> None:
    project.write("benchmarks/test_speed.py", FOREVER)
    session = project.start("--perf-against=HEAD")
    project.wait_for(moment, session)
    result = project.interrupt(session, number)
    assert result.code == pytest.ExitCode.INTERRUPTED
    result.line("!!! KeyboardInterrupt !!!")
    assert "INTERNALERROR" not in result.out
    assert "Traceback" not in result.out
    assert project.left_behind() == []
    assert project.git("status", "--porcelain") == " M benchmarks/test_speed.py\n"


def test_a_second_ctrl_c_does_not_keep_it_from_cleaning_up(project: Project) -> None:
    project.write("benchmarks/test_speed.py", FOREVER)
    session = project.start("--perf-against=HEAD")
    project.wait_for("perfsuite-*/before-tmp", session)
    for _ in range(5):
        session.send_signal(signal.SIGINT)
        time.sleep(0.05)
    session.communicate(timeout=60)
    assert project.left_behind() == []


def test_workers_end_with_a_coordinator_that_is_killed(project: Project) -> None:
    project.write("benchmarks/test_speed.py", BENCHMARK.replace("(timed)", "(timed, tmp_path)"))
    session = project.start("--perf-against=HEAD")
    project.wait_for("perfsuite-*/after-tmp", session)
    project.interrupt(session, signal.SIGKILL)
    project.wait_until_no_process_is_left()


IMPATIENT = """
import perfsuite.against.controllers


def pytest_runtest_setup(item):
    if "hung" in item.name:  # by then all is imported, which may take as long
        perfsuite.against.controllers._PATIENCE_S = 3.0
"""


def test_a_side_that_hangs_is_told(project: Project) -> None:
    project.write("benchmarks/test_speed.py", BENCHMARK + FOREVER.replace("test_step", "test_hung"))
    project.write("impatient.py", IMPATIENT)
    project.commit()
    result = project.against("-p", "impatient")
    assert result.code == 1
    result.line("FAILED", "test_hung", "gave no answer for 3 s")
    result.line("SAME", "step step_s")
    assert project.left_behind() == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--perf-against=no-such"], "'no-such' is no commit, branch or tag of "),
        (["--perf-against=--help"], "'--help' is no commit, branch or tag of "),
        (["--perf-against-python=/no/python"], "/no/python cannot be started: No such file"),
        (["--perf-against-python=/bin/false"], "its server ended with exit code 1"),
        ([f"--perf-against-python={sys.executable}"], "both sides are the same"),
        (["--perf-against=HEAD", "--benchmark-compare"], "one at a time"),
        (["--perf-against=HEAD", "--benchmark-disable"], "under --benchmark-disable"),
        (["--perf-against=HEAD", "--benchmark-skip"], "--benchmark-skip leaves nothing"),
        (["--perf-against=HEAD", "-n2"], "cannot measure under xdist"),
        (["--perf-against=HEAD", "--perf-device=cuda"], "--perf-device cuda"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_compared_is_refused_in_one_line(
    project: Project, arguments: list[str], message: str
) -> None:
    result = project.run(*arguments)
    assert result.code == pytest.ExitCode.USAGE_ERROR
    line = result.line("ERROR: ")
    assert message in line
    assert "Traceback" not in result.out
    assert project.left_behind() == []


def test_arguments_without_a_suite_are_refused_in_one_line(project: Project) -> None:
    result = project.run("--perf-against=HEAD", suite="src")
    assert result.code == pytest.ExitCode.USAGE_ERROR
    result.line("ERROR: ", "compares one suite; the arguments name no folder with a thresholds")


def test_a_flat_layout_and_an_editable_install_resolve_to_their_side(project: Project) -> None:
    """PYTHONPATH stands for a .pth file: an absolute path into the working tree."""
    project.git("mv", "src/mynet", "mynet")
    project.write("pyproject.toml", "[tool.pytest.ini_options]\n")
    project.commit()
    project.write("mynet/__init__.py", MYNET.replace("0.002", "0.008"))
    project.environment["PYTHONPATH"] = str(project.folder)
    result = project.against()
    result.line("SLOWER", "step step_s", "(2", "-> 8")


def test_a_suite_that_is_the_whole_tree_is_refused(project: Project) -> None:
    project.write("thresholds.toml", THRESHOLDS)
    (project.folder / "benchmarks" / "thresholds.toml").unlink()
    project.commit()
    result = project.against()
    assert result.code == pytest.ExitCode.USAGE_ERROR
    result.line("ERROR: ", "is the suite and the code under test at once")


def test_submodules_are_checked_out_from_where_they_are(project: Project, tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    project.git("init", "--quiet", folder=inner)
    (inner / "mynet").mkdir()
    (inner / "mynet" / "__init__.py").write_text(MYNET)
    project.git("add", "--all", folder=inner)
    project.git("commit", "--quiet", "--message=inner", folder=inner)
    project.git("rm", "-r", "--quiet", "src")
    project.git("submodule", "--quiet", "add", str(inner), "src")
    project.commit()
    inner.rename(tmp_path / "gone")  # nothing is fetched
    result = project.against()
    assert result.code == 0
    result.line("before:", "mynet")
    result.line("SAME", "step step_s")
    assert project.left_behind() == []


def test_two_sessions_at_once_do_not_disturb_each_other(project: Project) -> None:
    sessions = [project.start("--perf-against=HEAD", "--perf-budget=1") for _ in range(2)]
    outs = [session.communicate(timeout=300)[0] for session in sessions]
    assert [session.returncode for session in sessions] == [0, 0], outs
    assert project.left_behind() == []


def test_another_interpreter_runs_the_side_before(project: Project) -> None:
    """It has the same packages here, and its own name for where it lives."""
    home = project.home / "other"
    venv.create(home, system_site_packages=False, with_pip=False)
    site = next(home.glob("lib/python*/site-packages"))
    ours = [entry for entry in sys.path if entry.endswith("site-packages")]
    (site / "ours.pth").write_text("\n".join(ours) + "\n")
    result = project.run(f"--perf-against-python={home / 'bin' / 'python'}", "--perf-budget=1")
    assert result.code == 0
    result.line("before:", "the working tree", str(home))
    result.line("SAME", "step step_s")


def test_a_file_that_cannot_be_collected_is_an_error(project: Project) -> None:
    project.write("benchmarks/test_broken.py", "import nothing_of_this_name\n")
    result = project.against()
    assert result.code not in {0, 1}
    result.line("ERROR collecting benchmarks/test_broken.py")
    result.line("ModuleNotFoundError: No module named 'nothing_of_this_name'")


def test_a_conftest_that_fails_is_told_in_one_line(project: Project) -> None:
    project.write("benchmarks/conftest.py", "raise ValueError('broken')\n")
    result = project.against()
    assert result.code == pytest.ExitCode.USAGE_ERROR
    result.line("ERROR: ", "its server ended with exit code 4, saying: ", "ValueError: broken")


MODES = """
import mynet
import pytest


@pytest.mark.parametrize("mode", mynet.MODES)
def test_mode(timed, mode):
    timed(mynet.wait)
"""


def test_what_the_code_after_no_longer_offers_is_not_passed_over(project: Project) -> None:
    project.write("src/mynet/__init__.py", MYNET + "MODES = ['fast', 'slow']\nwait.fast = 1\n")
    project.write("benchmarks/test_modes.py", MODES)
    project.write("benchmarks/test_fast.py", FAST)
    project.write("benchmarks/inner/conftest.py", "import mynet\n\nmynet.wait.fast\n")
    project.write("benchmarks/inner/test_inner.py", BENCHMARK.replace("test_step", "test_inner"))
    project.commit()
    project.write("src/mynet/__init__.py", MYNET + "MODES = ['fast']\n")
    result = project.against()
    assert result.code == 1
    result.line("FAILED", "test_mode[slow]", "after could not run it")
    result.line("FAILED", "test_fast.py::test_step", "after could not run it", "Skipped: gone")
    result.line("FAILED", "test_inner", "after could not run it", "has no attribute 'fast'")
    result.line("SAME", "mode[fast] step_s")


FAST = (
    """
import mynet
import pytest

if not hasattr(mynet.wait, "fast"):
    pytest.skip("gone", allow_module_level=True)
"""
    + BENCHMARK
)


def test_collect_only_and_selection_are_pytests_own(project: Project) -> None:
    project.write("benchmarks/test_more.py", MARKED)
    result = project.against("--collect-only", "-q", "-m", "not slow", "-k", "more")
    assert result.code == 0
    result.line("benchmarks/test_more.py::test_quick")
    assert "test_slow" not in result.out
    assert "test_step" not in result.out
    assert project.left_behind() == []


MARKED = """
import pytest


@pytest.mark.slow
def test_slow(timed):
    pass


def test_quick(timed):
    pass
"""


def test_a_conftest_of_the_tree_does_not_stand_for_the_code_under_test(project: Project) -> None:
    """mynet is installed apart from the tree, whose own conftest.py is another on either side."""
    site = project.home / "site-packages"
    site.mkdir()
    (project.folder / "src" / "mynet").rename(site / "mynet")
    project.write("conftest.py", "")
    project.commit()
    result = project.against("-o", f"pythonpath={site}")
    assert result.code == 1
    result.line("FAILED", "not two trees: nothing but the benchmarks themselves was imported")


def test_what_a_benchmark_starts_is_of_its_side_too(project: Project) -> None:
    project.write("benchmarks/test_speed.py", STARTS)
    project.commit()
    project.write("src/mynet/__init__.py", MYNET + "SIZE = 300\n")
    project.environment["PYTHONPATH"] = str(project.folder / "src")
    result = project.against()
    result.line("MORE  ", "figure  ", "3.000x (100 B -> 300 B)")


STARTS = """
import subprocess
import sys

import mynet


def test_figure(perf):
    code = "import mynet; print(getattr(mynet, 'SIZE', 100))"
    size = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    perf.timed([1.0])
    perf.metric("figure", float(size), unit="B", better="lower")
"""


def test_it_is_run_from_a_folder_within_and_leaves_other_tests_out(project: Project) -> None:
    project.write("tests/test_other.py", "def test_it():\n    raise AssertionError\n")
    options = ("--rootdir=..", "--perf-against=HEAD", "--perf-budget=1", "../tests")
    result = project.run(*options, folder="src", suite="../benchmarks")
    assert result.code == 0
    result.line("SAME", "step step_s")
    result.line("left out, as no part of the suite: test_other.py")
