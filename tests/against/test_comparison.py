"""What cannot be compared is refused in one line; whatever ends a comparison leaves nothing."""

import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec import structs
from projects import Project, Result
from suites import Suite, timed, usage_error

from perfsuite.against.comparison import Comparison, ComparisonError, refuse_incomparable
from perfsuite.against.comparison_session import ComparisonSession
from perfsuite.against.messages import Collected
from perfsuite.records.git import Ref

pytestmark = pytest.mark.slow
NOTHING_LOADED: dict[str, list[str]] = {"before": [], "after": [], "neither": [], "shadowed": []}


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Suite:
    suite = Suite(pytester, monkeypatch)
    suite.write("test_speed.py", timed("test_step"))
    suite.commit()
    return suite


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--perf-against=no-such"], "'no-such' is no commit, branch or tag of "),
        (["--perf-against=--help"], "'--help' is no commit, branch or tag of "),
        (["--perf-against-python=/no/python"], "/no/python cannot be started: No such file"),
        (["--perf-against-python=/bin/false"], "its server ended with exit code 1"),
        (["--perf-against=HEAD", "--benchmark-compare"], "one at a time"),
        (["--perf-against=HEAD", "--benchmark-disable"], "perfsuite could not evaluate its gates"),
        (["--perf-against=HEAD", "--benchmark-skip"], "--benchmark-skip leaves nothing"),
        (["--perf-against=HEAD", "-n2"], "cannot measure under xdist"),
        (["--perf-against=HEAD"], "is the suite and the code under test at once"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_compared_is_refused_in_one_line(
    suite: Suite, arguments: list[str], message: str
) -> None:
    assert message in usage_error(suite.run(*arguments))


def test_a_comparison_under_torchrun_is_refused_in_one_line(
    suite: Suite, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    said = usage_error(suite.run("--perf-against=HEAD"))
    assert "each side starts its ranks by itself: start pytest without torchrun, with" in said
    assert said.endswith(" --perf-ranks 2")


def test_arguments_without_a_suite_are_refused_in_one_line(suite: Suite) -> None:
    suite.remove("thresholds.toml")
    found = usage_error(suite.run("--perf-against=HEAD"))
    assert "compares one suite, and the arguments name none" in found


def collected(prefix: str = "/usr", key: str = "cpu", **software: str) -> Collected:
    return Collected(
        items={},
        errors={"inner": "broken", "test_a.py": "gone"},
        prefix=prefix,
        hardware={"key": key},
        software={"torch": "2.11", **software},
        loaded=NOTHING_LOADED | {"before": ["old"], "after": ["new"]},
    )


@pytest.mark.parametrize(
    ("now", "one_tree", "message"),
    [
        (collected(), True, "names the interpreter of /usr, .*: both sides are the same"),
        (collected(), False, None),
        (collected("/opt"), True, None),
        (collected(torch="2.12"), True, None),
        (collected(key="h100"), False, "before runs on cpu and after on h100: not comparable"),
    ],
    ids=["same", "two-trees", "two-interpreters", "two-versions", "two-machines"],
)
def test_two_sides_must_differ_in_their_code_only(
    now: Collected, one_tree: bool, message: str | None
) -> None:
    if message is None:
        refuse_incomparable(collected(), now, one_tree=one_tree)
        return
    with pytest.raises(ComparisonError, match=message):
        refuse_incomparable(collected(), now, one_tree=one_tree)


@pytest.mark.parametrize(
    ("file", "why"), [("test_a.py", "gone"), ("inner/x/test_b.py", "broken"), ("test_b.py", None)]
)
def test_a_file_was_not_collected_if_a_folder_around_it_was_not(file: str, why: str | None) -> None:
    assert collected().why_not(file) == why


REF = Ref(name="main", commit="0123456789abcdef", top=Path("/tree"), dirty=True)


def test_it_is_said_where_throttling_cannot_be_seen() -> None:
    why = "cannot be seen: NVML: Driver Not Loaded"
    now = collected(throttling=why)
    now.hardware.update(name="A GPU", count=1)
    comparison = SimpleNamespace(header=lambda: ["what is compared"])
    session: Any = SimpleNamespace(_collected={"after": now}, _comparison=comparison)
    _, *said = ComparisonSession.header(session)
    assert said == [f"throttling {why}", "what is compared"]


@pytest.mark.parametrize(
    ("ref", "now", "lines"),
    [
        (
            REF,
            collected(),
            [
                "before: main (0123456789ab); its own old",
                "after:  the working tree, with uncommitted changes; its own new",
            ],
        ),
        (
            None,
            collected("/opt", torch="2.12"),
            [
                "before: the working tree; its own new; /usr",
                "after:  the working tree; its own new; /opt",
                "  differs: torch 2.11 -> 2.12",
            ],
        ),
    ],
    ids=["two-trees", "two-interpreters"],
)
def test_it_is_said_what_is_compared(ref: Ref | None, now: Collected, lines: list[str]) -> None:
    servers: Any = {"before": None, "after": None}
    both = {"before": collected(), "after": now}
    assert (
        Comparison(ref=ref, **servers, collected=both, suite=Path("benchmarks")).header() == lines
    )


def test_no_command_is_told_that_would_not_search_the_benchmark(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("perfsuite.against.comparison.which_commit", lambda *_: ["which commit"])
    server = SimpleNamespace(ranks=1)
    servers: Any = {"before": server, "after": server}
    now = structs.replace(collected(), items={"timed": [], "alone": ["one_tree"]})
    both = {"before": now, "after": now}
    comparison = Comparison(ref=REF, **servers, collected=both, suite=Path("benchmarks"))
    assert [comparison.which(key, "") for key in ("timed", "alone")] == [["which commit"], []]


def test_where_packages_differ_too_both_commands_are_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("perfsuite.against.comparison.which_commit", lambda *asked: [asked[1]])
    server = SimpleNamespace(ranks=1)
    servers: Any = {"before": server, "after": server, "suite": Path("benchmarks")}
    both = {"before": collected(), "after": collected(torch="2.12")}
    searched = " benchmarks/a.py -k test_a --figure step_s"
    packages = f"which package: perfsuite bisect --packages then/bin/python{searched}"
    for ref, python, expected in (
        (REF, "then/bin/python", [searched, packages]),
        (REF, None, [searched]),
        (None, "then/bin/python", [packages]),
    ):
        comparison = Comparison(ref=ref, **servers, collected=both, python=python)
        assert comparison.which("a.py::test_a", "step_s") == expected


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("interrupted"))
    project.write("benchmarks/test_speed.py", "# not committed\n")
    return project


def interrupted(project: Project, moment: str, *numbers: signal.Signals, **stub: object) -> Result:
    """Send signals to a session with stubs for servers, once a file tells the moment."""
    project.stub(items={"test_speed.py::test_hung": []}, **stub)
    session = project.start("--perf-against=HEAD", "-pstub_server")
    project.wait_for(moment, session)
    for number in numbers:
        session.send_signal(number)
        time.sleep(0.05)
    result = project.ended(session)
    assert project.left_behind() == [], result.out
    assert project.git("status", "--porcelain") == " M benchmarks/test_speed.py\n"
    for file in project.scratch.glob("working-*"):
        file.unlink()
    return result


@pytest.mark.parametrize(
    ("moment", "hangs", "number"),
    [
        ("perfsuite-*/perfsuite-*", True, signal.SIGINT),
        ("perfsuite-*/after.log", True, signal.SIGINT),
        ("working-*", False, signal.SIGINT),
        ("working-*", False, signal.SIGTERM),
        ("working-*", False, signal.SIGHUP),
    ],
    ids=["checking-out", "starting", "measuring", "terminated", "hung-up"],
)
def test_it_is_ended_at_any_moment(
    project: Project, moment: str, hangs: bool, number: signal.Signals
) -> None:
    result = interrupted(project, moment, number, hangs=hangs)
    result.ends_with(pytest.ExitCode.INTERRUPTED)
    result.line("!!! KeyboardInterrupt !!!")
    result.lacks("INTERNALERROR", "Traceback")


def test_a_second_ctrl_c_does_not_keep_it_from_cleaning_up(project: Project) -> None:
    interrupted(project, "working-*", *[signal.SIGINT] * 5)


def test_a_side_that_cannot_be_served_is_refused_and_cleaned_up(project: Project) -> None:
    project.stub(prints="E   ValueError: broken")
    result = project.run("--perf-against=HEAD", "-pstub_server")
    result.ends_with(pytest.ExitCode.USAGE_ERROR)
    result.line("ERROR: --perf-against: ", "exit code 1, saying: ValueError: broken")
    assert project.left_behind() == []


def test_where_two_sides_run_the_same_code_nothing_is_concluded(project: Project) -> None:
    project.stub(items={"test_speed.py::test_stray": [], "test_speed.py::test_other": ["mine"]})
    result = project.run("--perf-against=HEAD", "-pstub_server", "-k", "stray", "-m", "not mine")
    result.ends_with(1)
    result.line("FAILED", "test_stray", "not two trees: nothing but the benchmarks themselves was")
    result.lacks("test_other")
