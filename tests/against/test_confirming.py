"""Nights held against a baseline: what is suspected is measured again beside the promoted code.

Time passes in its steps only where they say so, and $NIGHT says how slow a night is.
"""

from types import SimpleNamespace
from typing import Any

import pytest
from projects import Project, Result, night, night_like, saved

from perfsuite.against.confirming import Confirmer
from perfsuite.records.promotion import promote

pytestmark = pytest.mark.slow

MYNET = """
import os

NIGHT = float(os.environ.get("NIGHT", "1"))
now_s = 0.0


def wait(seconds=0.2):
    global now_s
    now_s += seconds * NIGHT
"""

BENCHMARKS = """
import mynet
import pytest

from perfsuite.devices.cpu import HostClock
from perfsuite.measuring import bench

bench.read_cpu_use = lambda: None  # whatever else the machine does while the tests run


def test_a(timed):
    timed(mynet.wait)


def test_b(timed):
    timed(mynet.wait)


@pytest.mark.one_tree
def test_ratio(perf):
    perf.clock = HostClock(lambda: mynet.now_s)
    ratio = perf.compare(lambda: mynet.wait(0.1), mynet.wait)
    perf.metric("ratio", mynet.NIGHT * ratio.value, unit="x", better="lower")


def test_changed(timed):
    timed(mynet.changed)
"""

BEFORE = MYNET + "\n\ndef changed():\n    wait()\n"
AFTER = MYNET + "\n\ndef changed():\n    wait(0.24)\n"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Return a project with three promoted runs that differ by 3 %, and then a slower function."""
    project = Project(tmp_path_factory.mktemp("confirming"))
    project.write("src/mynet/__init__.py", BEFORE)
    project.write("benchmarks/test_speed.py", BENCHMARKS)
    project.commit()
    recorded = project.home / "run.json"
    project.run(f"--benchmark-json={recorded}").ends_with(0)
    runs = [night_like(recorded, factor) for factor in (0.97, 1.0, 1.03)]
    promote(runs, project.folder / "benchmarks")
    project.write("src/mynet/__init__.py", AFTER)
    project.commit()
    return project


@pytest.fixture(scope="module")
def ordinary(project: Project) -> Result:
    """Return a night as good as those that were promoted."""
    return night(project, 0.93, "-v", f"--benchmark-json={project.home / 'ordinary.json'}")


def test_what_is_clearly_green_is_not_measured_again(ordinary: Result) -> None:
    table = ordinary.part(" perfsuite ", " short test summary ")
    table.line("  a compare step_s", "PASS", "at most 5.0% worse than the 3 promoted runs")


def test_a_change_of_the_code_is_confirmed_and_red(ordinary: Result) -> None:
    ordinary.ends_with(1)
    ordinary.line("test_changed", "FAILED", "%]")
    table = ordinary.part(" perfsuite ", " short test summary ")
    table.line("  changed compare step_s", "SLOWER", "1.200x [1.200, 1.200]")
    assert "suspected at 1.1" in table.out


def test_the_run_keeps_both_stages_and_what_they_cost(project: Project, ordinary: Result) -> None:
    ordinary.line("confirming what was suspected took ")
    run = saved(project.home / "ordinary.json")
    records = {b["name"]: b["extra_info"]["perfsuite"] for b in run["benchmarks"]}
    assert records["test_a"]["confirmation"] is None
    kept = records["test_changed"]["confirmation"]
    assert [each["gate"] for each in kept["suspected"]] == ["compare step_s"]
    assert kept["took_s"] > 0
    assert kept["why_not"] == ""
    assert len(kept["turns"]["restarts"]) >= 8


def test_a_slow_night_is_cleared_by_the_promoted_code_which_is_as_slow(project: Project) -> None:
    result = night(project, 1.05, "-k", "test_a or test_ratio", "-v")
    result.ends_with(0)
    table = result.part(" perfsuite ")
    table.line("  a compare step_s", "SAME", "1.000x [1.000, 1.000]")
    table.line("  ratio compare ratio", "SAME", "1.000x [1.000, 1.000]")


def test_a_change_of_the_environment_is_told_as_such(project: Project) -> None:
    result = night(project, 2.0, "-k", "test_a")
    result.ends_with(1)
    table = result.part(" perfsuite ", " short test summary ")
    table.line("  a compare step_s", "SAME")
    table.line("  a environment step_s", "ENVIRONMENT", "2.001x [")
    assert "the promoted code measures the same today; what else differs: " in table.out
    table.lacks("SLOWER")


def confirmer_of(**promoted: Any) -> Confirmer:
    names = ("config", "suite", "software", "thresholds", "status", "pot")
    given: dict[str, Any] = dict.fromkeys(names)
    run = SimpleNamespace(**{"commit": "0123456789" * 4, "dirty": False} | promoted)
    baseline: Any = SimpleNamespace(runs=[run])
    return Confirmer(baseline=baseline, **given)


def test_ranks_of_several_machines_confirm_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    assert confirmer_of()._ready() == "it takes the ranks of one machine, and there are 2"


def test_what_was_promoted_with_uncommitted_changes_is_in_no_commit() -> None:
    why = confirmer_of(dirty=True)._ready()
    assert why == (
        "what was promoted is 012345678901 with uncommitted changes, so that it cannot be"
        " measured again; commit them, and promote runs of that commit"
    )


def test_an_environment_that_cannot_be_made_anew_is_told_and_today_s_is_taken() -> None:
    confirmer = confirmer_of(software={"python": "3.10.1"})
    options: Any = SimpleNamespace(getoption=lambda _: "auto")
    comparison: Any = SimpleNamespace(header=lambda: ["what is compared"])
    confirmer.config, confirmer.software = options, {"python": "3.11.7"}
    assert confirmer._python() is None
    confirmer._comparison = comparison
    took, why, compared = confirmer.summary()
    assert took == "confirming what was suspected took 0 s"
    assert why.startswith("the promoted commit ran with today's interpreter: it was promoted with")
    assert compared == "what is compared"


@pytest.mark.parametrize(
    ("then", "python", "moved", "told"),
    [
        ({"torch": "2.14.1"}, None, True, True),
        ({"torch": "2.14.1"}, None, False, False),
        ({"torch": "2.14.1"}, "/old/python", True, False),
        ({"torch": "2.15.0"}, None, True, False),
        ({"torch": "2.14.1", "python": "3.10.1"}, None, True, False),
    ],
    ids=["upgraded", "as fast", "the old one ran", "nothing changed", "another Python"],
)
def test_what_an_upgrade_made_slower_is_told_how_to_be_searched(
    then: dict[str, str], python: str | None, *, moved: bool, told: bool
) -> None:
    confirmer = confirmer_of(software={"python": "3.11.7"} | then)
    confirmer.software = {"python": "3.11.7", "torch": "2.15.0"}
    comparison: Any = SimpleNamespace(python=python, header=list)
    confirmer._comparison, confirmer._moved = comparison, moved
    again = "measures with torch==2.14.1 again, and tells how to search on"
    expected = [f"which package: --perf-confirm-python auto {again}"] * told
    assert confirmer.summary()[1:] == expected


def test_nothing_is_left_behind(project: Project) -> None:
    assert project.left_behind() == []
