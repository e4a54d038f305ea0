"""--perf-against, from end to end: what one session says of benchmarks of every kind."""

from pathlib import Path

import pytest
from projects import MYNET, Project, Result, saved
from reports import read

from perfsuite.report.render import write_report

BENCHMARKS = """
import os
import signal
import sys

import mynet
import pytest
import torch


def test_same(timed):
    timed(mynet.wait)


def test_slower(timed):
    timed(lambda: mynet.wait(mynet.SLOWER_S))


def test_slower_operator(timed):
    ones = torch.ones(200, 200)
    timed(lambda: [torch.mm(ones, ones) for _ in range(mynet.PRODUCTS)])


class TestNested:
    @pytest.mark.parametrize("unit", ["B", "x"])
    def test_figure(self, perf, unit):
        perf.timed([1.0])
        perf.metric("figure", mynet.FIGURE, unit=unit, better="lower")


def test_that_prints(timed):
    print("a" * 100_000)
    os.write(1, b"straight to the descriptor" * 1000)
    timed(mynet.wait)


def test_that_is_killed(timed):
    timed(lambda: mynet.KILLED and os.kill(os.getpid(), signal.SIGKILL))


def test_that_exits(timed):
    timed(lambda: mynet.KILLED and os._exit(3))


def test_that_raises(timed):
    if mynet.KILLED:
        raise MemoryError("no room")
    timed(mynet.wait)


def test_that_times_less(perf, timed):
    if mynet.KILLED:
        perf.timed([1.0])
    else:
        timed(mynet.wait)


def test_too_new(timed):
    timed(mynet.new)


def test_two_arms(perf, timed):
    perf.duet(None, None, None)


@pytest.mark.one_tree
def test_alone(timed):
    timed(mynet.wait)


def test_that_is_no_benchmark():
    raise AssertionError
"""

PROBE = """
import sys

import psutil


def pytest_terminal_summary(terminalreporter):
    rss_mib = psutil.Process().memory_info().rss / 2**20
    heavy = sorted({"torch", "mynet"} & sys.modules.keys())
    terminalreporter.write_line(f"coordinator: {rss_mib:.0f} MiB, imported {heavy}")
"""

BEFORE = MYNET + "SLOWER_S = STEP_S\nFIGURE = 100\nKILLED = False\nPRODUCTS = 4\n"
AFTER = (
    MYNET
    + "SLOWER_S = 4 * STEP_S\nFIGURE = 200\nKILLED = True\nPRODUCTS = 16\n"
    + "\ndef new():\n    wait()\n"
)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("against"))
    project.write("src/mynet/__init__.py", BEFORE)
    project.write("probe.py", PROBE)
    project.commit()
    # From here on nothing is committed: the benchmarks are newer than the code before.
    project.write("src/mynet/__init__.py", AFTER)
    project.write("src/mynet/later.py", "")
    project.write("benchmarks/test_speed.py", BENCHMARKS)
    project.write(
        "benchmarks/test_later.py", "import mynet.later\n\ndef test_it(timed):\n    pass\n"
    )
    return project


@pytest.fixture(scope="module")
def result(project: Project) -> Result:
    project.git("add", "src/mynet/later.py")  # a dirty index, too
    return project.against(
        "-v",
        "-pprobe",
        f"--benchmark-json={project.home / 'run.json'}",
        f"--junitxml={project.home / 'x.xml'}",
    )


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("same step_s", ["SAME"]),
        ("slower step_s", ["SLOWER", "(2", "-> 8"]),
        ("figure[B]", ["MORE", "2.000x (100 B -> 200 B)"]),
        ("figure[x]", ["WORSE", "2.000x [2.000, 2.000] (100 x -> 200 x)"]),
        ("that_prints step_s", ["SAME"]),
        ("that_is_killed", ["FAIL", "after could not run it"]),
        ("that_exits", ["FAIL", "after could not run it"]),
        ("that_raises", ["FAIL", "after could not run it"]),
        ("too_new", ["INCONCLUSIVE", "not run on both sides"]),
        ("two_arms", ["FAIL", "after could not run it"]),
        ("it against", ["INCONCLUSIVE", "not run on both sides"]),
    ],
)
def test_verdicts(result: Result, name: str, parts: list[str]) -> None:
    table = result.out[result.out.index(" perfsuite ") : result.out.index(" short test summary ")]
    Result(0, table).line(f"  {name}", *parts)


@pytest.mark.parametrize(
    "why",
    [
        "ended with SIGKILL, as a process does that takes more memory than there is",
        "ended with exit code 3",
        "MemoryError: no room",
        "AttributeError: module 'mynet' has no attribute 'new'",
        "perf.duet judges one tree by itself: mark the benchmark one_tree",
        "ModuleNotFoundError: No module named 'mynet.later'",
    ],
)
def test_what_could_not_be_run_is_said_in_one_line(result: Result, why: str) -> None:
    table = result.out[result.out.index(" perfsuite ") :]
    assert why in table
    assert "Traceback" not in result.out


def test_an_item_fails_where_its_verdict_is_red(result: Result) -> None:
    assert result.code == 1
    for name, outcome in {
        "test_same": "PASSED",
        "test_slower": "FAILED",
        "TestNested::test_figure[B]": "FAILED",
        "test_that_is_killed": "FAILED",
        "test_too_new": "FAILED",
    }.items():
        result.line(f"test_speed.py::{name} ", outcome, "%]")


def test_a_slower_operator_is_named(project: Project, result: Result) -> None:
    failures = result.out[: result.out.index(" perfsuite ")]
    said = Result(0, failures[failures.index("_ test_slower_operator _") :])
    first, second = [
        line for line in said.out.splitlines() if "aten::mm" in line or "profiled" in line
    ]
    assert "profiled: " in first
    assert "(called 4 -> 16 times), " in second


def test_a_timing_that_was_lost_is_a_failure(result: Result) -> None:
    lost = "the code after times nothing where the code before times fp32"
    result.line("FAILED", "test_that_times_less", lost)


def test_what_judges_one_tree_is_left_out_and_named(result: Result) -> None:
    result.line("left out, since they judge one tree by itself: test_alone")
    assert "test_that_is_no_benchmark" not in result.out


def test_it_is_said_what_was_compared(project: Project, result: Result) -> None:
    head = project.git("rev-parse", "HEAD")[:12]
    result.line("before:", f"HEAD ({head})", "mynet")
    result.line("after:", "the working tree, with uncommitted changes", "mynet")


def test_the_run_holds_both_sides_blocks(project: Project, result: Result) -> None:
    document = saved(project.home / "run.json")
    assert document["perfsuite"]["against"]["commit"] in project.git("rev-parse", "HEAD")
    by_name = {each["name"]: each for each in document["benchmarks"]}
    record = by_name["test_slower"]["extra_info"]["perfsuite"]
    restarts = record["against"]["restarts"]
    assert len(restarts) >= 12
    assert {each["started"] for each in restarts} == {"AB", "BA"}
    turns = restarts[0]["turns"]["step_s"]
    assert len(turns["order"]) == len(turns["blocks"]) >= 8
    times_s: dict[str, list[float]] = {"A": [], "B": []}
    for side, block in zip(turns["order"], turns["blocks"], strict=True):
        times_s[side].append(block["wall_s"])
    assert min(times_s["B"]) > 2 * min(times_s["A"])
    assert [each["word"] for each in record["verdicts"]] == ["SLOWER"]


def test_a_report_shows_both_sides(project: Project, result: Result, tmp_path: Path) -> None:
    write_report(project.home / "run.json", [], tmp_path)
    found = read(tmp_path)
    times = found.charts("Step times")["Median by arm"]
    before, after = (times.row(f"slower: {side}")[0] for side in ("before", "after"))
    assert float(after) > 2 * float(before)
    operators = found.charts("Operators")["slower_operator: operators"]
    assert operators.row("aten::mm")[2:] == [4, 16]
    assert "before: HEAD" in found.page.text


def test_the_coordinator_is_light(result: Result) -> None:
    line = result.line("coordinator: ", "imported []")
    assert int(line.split()[1]) < 300


def test_pytest_benchmark_reads_the_run(project: Project, result: Result) -> None:
    document = saved(project.home / "run.json")
    for benchmark in document["benchmarks"]:
        assert benchmark["stats"]["min"] > 0
    assert "test_slower" in (project.home / "x.xml").read_text()


def test_nothing_is_left_behind_or_touched(project: Project, result: Result) -> None:
    assert project.left_behind() == []
    assert project.git("status", "--porcelain").splitlines() == [
        " M benchmarks/test_speed.py",
        " M src/mynet/__init__.py",
        "A  src/mynet/later.py",
        "?? benchmarks/test_later.py",
    ]
    assert not list(project.folder.rglob("__pycache__"))
