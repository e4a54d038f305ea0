"""One session of --perf-against, from end to end: what it says of benchmarks of every kind.

Time passes in its steps only where they say so, so that its verdicts do not rest on any timing.
"""

from pathlib import Path
from typing import Any

import pytest
from compared_suite import (
    AFTER,
    BEFORE,
    BENCHMARKS,
    MORE,
    PROBE,
)
from projects import Project, Result, saved
from reports import read

from perfsuite.judging.stopping import LOOKS
from perfsuite.report.render import write_report

pytestmark = pytest.mark.slow


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
    for name, text in MORE.items():
        project.write(f"benchmarks/{name}", text)
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
        ("batch step_s", ["SAME", "(400 ms -> 400 ms)"]),
        ("slower step_s", ["SLOWER", "4.000x [4.000, 4.000] (200 ms -> 800 ms)"]),
        ("stalling step_s", ["SLOWER", "(200 ms -> "]),
        ("in_stretches step_s", ["SLOWER", "2.000x [2.000, 2.000] (1 ms -> 2 ms)"]),
        ("slower_operator step_s", ["SLOWER", "(200 ms -> 800 ms)"]),
        ("figure[B]", ["MORE", "2.000x (100 B -> 200 B)"]),
        ("figure[x]", ["WORSE", "2.000x [2.000, 2.000] (100 x -> 200 x)"]),
        ("counted ledger", ["CHANGED", "3 differ", "as before"]),
        ("that_prints step_s", ["SAME"]),
        ("that_is_killed", ["FAIL", "the code after could not run the benchmark"]),
        ("that_exits", ["FAIL", "the code after could not run the benchmark"]),
        ("that_raises", ["FAIL", "the code after could not run the benchmark"]),
        ("too_new", ["INCONCLUSIVE", "the code before could not run the benchmark"]),
        ("two_arms", ["FAIL", "the code after could not run the benchmark"]),
        ("it against", ["INCONCLUSIVE", "the code before could not run the benchmark"]),
        ("mode[fast] figure", ["SAME"]),
        ("mode[slow]", ["FAIL", "the code after could not run the benchmark"]),
        ("skipped", ["FAIL", "the code after could not run the benchmark"]),
        ("inner", ["FAIL", "the code after could not run the benchmark"]),
    ],
)
def test_verdicts(result: Result, name: str, parts: list[str]) -> None:
    result.part(" perfsuite ", " short test summary ").line(f"  {name}", *parts)


@pytest.mark.parametrize(
    "why",
    [
        "ended with SIGKILL, as a process does that takes more memory than there is",
        "ended with exit code 3",
        "MemoryError: no room",
        "AttributeError: module 'mynet' has no attribute 'new'",
        "perf.duet judges one tree by itself: mark the benchmark one_tree",
        "ModuleNotFoundError: No module named 'mynet.later'",
        "Skipped: gone",
        "AttributeError: module 'mynet' has no attribute 'EARLIER'",
        "the benchmark was not collected there",
    ],
)
def test_what_could_not_be_run_is_said_in_one_line(result: Result, why: str) -> None:
    if why not in result.part(" perfsuite ").out:
        pytest.fail(f"not said: {why}\n{result.out}")
    result.lacks("Traceback")


def test_an_item_fails_where_its_verdict_is_red(result: Result) -> None:
    result.ends_with(1)
    for name, outcome in {
        "test_same": "PASSED",
        "test_slower": "FAILED",
        "TestNested::test_figure[B]": "FAILED",
        "test_that_is_killed": "FAILED",
        "test_too_new": "FAILED",
    }.items():
        result.line(f"test_speed.py::{name} ", outcome, "%]")


def test_where_the_time_of_a_slower_step_goes_is_said(project: Project, result: Result) -> None:
    """How often an operator is called is certain; how long it takes is up to the machine."""
    said = result.part("_ test_slower_operator _", " perfsuite ")
    said.line("profiled: ", " a step")
    record = records(project)["test_slower_operator"]
    profiles = record["against"]["profiles"]
    calls = [profiles[side]["operators"]["aten::mm"]["calls"] for side in ("before", "after")]
    assert calls == [4, 16]
    named = "aten::mm" in said.out
    assert ("(called 4 -> 16 times), " in said.out) if named else ("no operator" in said.out)


def test_where_it_is_stalls_they_are_told_and_no_operator_is(result: Result) -> None:
    said = result.part("_ test_stalling _", "_ test_in_stretches _")
    said.line("SLOWER against step_s", "% of steps take 10 times as long (before: none)")
    said.line("  stalls: ", "% of steps take 10 times", "no operator is named")
    said.lacks("aten::mm")


def test_a_stall_in_every_hundredth_step_is_told_where_hundreds_are_timed(result: Result) -> None:
    said = result.part("_ test_in_stretches _", "_ test_slower_operator _")
    said.line("SLOWER against step_s", "stalls: 1% of steps take 101 times as long (before: none)")


def test_a_timing_that_was_lost_is_a_failure(result: Result) -> None:
    lost = "the code after times nothing where the code before times fp32"
    result.line("FAILED", "test_that_times_less", lost)


def test_what_judges_one_tree_is_left_out_and_named(result: Result) -> None:
    result.line("left out, since they judge one tree by itself: test_alone")
    result.lacks("test_that_is_no_benchmark")


def test_it_is_said_what_was_compared(project: Project, result: Result) -> None:
    head = project.git("rev-parse", "HEAD")[:12]
    result.line("before:", f"HEAD ({head})", "mynet")
    result.line("after:", "the working tree, with uncommitted changes", "mynet")


def records(project: Project) -> dict[str, Any]:
    """Return what the run's JSON says of each benchmark, by name."""
    benchmarks = saved(project.home / "run.json")["benchmarks"]
    return {each["name"]: each["extra_info"]["perfsuite"] for each in benchmarks}


def test_the_run_holds_both_sides_blocks(project: Project, result: Result) -> None:
    document = saved(project.home / "run.json")
    assert document["perfsuite"]["against"]["commit"] in project.git("rev-parse", "HEAD")
    record = records(project)["test_slower"]
    restarts = record["against"]["restarts"]
    assert len(restarts) >= LOOKS[0]
    assert {each["started"] for each in restarts} == {"AB", "BA"}
    turns = restarts[0]["turns"]["step_s"]
    assert len(turns["order"]) == len(turns["blocks"]) >= 8
    times_s: dict[str, list[float]] = {"A": [], "B": []}
    for side, block in zip(turns["order"], turns["blocks"], strict=True):
        times_s[side].append(block["wall_s"])
    assert min(times_s["B"]) == pytest.approx(4 * max(times_s["A"]))
    assert [each["word"] for each in record["verdicts"]] == ["SLOWER"]


def test_a_report_shows_both_sides(project: Project, result: Result, tmp_path: Path) -> None:
    write_report(project.home / "run.json", [], tmp_path)
    found = read(tmp_path)
    times = found.charts("Step times")["Median by arm"]
    before, after = (times.row(f"slower: {side}")[0] for side in ("before", "after"))
    assert float(after) == pytest.approx(4 * float(before), rel=0.01)
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
        "?? benchmarks/inner/",
        "?? benchmarks/test_later.py",
        "?? benchmarks/test_skipped.py",
    ]
    # Of the project itself nothing is compiled; the probe is this test's own plugin.
    compiled = {path.name.partition(".")[0] for path in project.folder.rglob("*.pyc")}
    assert compiled <= {"probe"}
