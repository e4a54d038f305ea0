"""Placeholders stand for benchmarks under every option that selects, lists or reports them."""

import json
import sys
from collections.abc import Callable

import pytest
import stub_server
from suites import Suite

from perfsuite.against import controllers

RunSession = Callable[..., pytest.RunResult]


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> RunSession:
    """Run a comparison of two interpreters, both of them stubs, in this process."""
    suite = Suite(pytester, monkeypatch)
    monkeypatch.setattr(controllers, "_BOOTSTRAP", stub_server.PLACE)
    for name in ("test_speed.py", "test_long.py", "inner/test_more.py"):
        suite.write(name, "raise AssertionError('no benchmark is imported')\n")
    suite.write("conftest.py", "raise AssertionError('nor is a conftest')\n")

    def run(*arguments: str, errors: dict[str, str] | None = None) -> pytest.RunResult:
        items = {
            "test_speed.py::test_quick[fp32]": [],
            "test_speed.py::test_slow": ["slow"],
            "test_speed.py::TestNested::TestInner::test_quick": [],
            "inner/test_more.py::test_more": ["one_tree"],
            "test_long.py::test_long": ["when_named"],
        }
        kept = {key: marks for key, marks in items.items() if key[:8] not in str(errors)}
        monkeypatch.setenv("STUB", json.dumps({"items": kept, "errors": errors or {}}))
        return suite.run(f"--perf-against-python={sys.executable}", *arguments)

    return run


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ([], ["test_quick[fp32]", "test_slow", "TestNested::TestInner::test_quick"]),
        (["-m", "slow"], ["test_slow"]),
        (["-m", "not slow", "-k", "not Nested"], ["test_quick[fp32]"]),
        (["-k", "Inner"], ["TestNested::TestInner::test_quick"]),
        (["test_speed.py::test_slow"], ["test_slow"]),
        (["--deselect=test_speed.py::TestNested"], ["test_quick[fp32]", "test_slow"]),
        (["--benchmark-only", "-k", "slow"], ["test_slow"]),
    ],
    ids=lambda value: " ".join(value) if value and isinstance(value, list) else "",
)
def test_they_are_selected_as_the_benchmarks_would_be(
    run: RunSession, arguments: list[str], names: list[str]
) -> None:
    result = run("--collect-only", "-q", *arguments)
    found = [line for line in result.outlines if line.startswith("test_speed.py::")]
    assert found == [f"test_speed.py::{name}" for name in names]
    assert result.ret == 0


@pytest.mark.parametrize("named", [False, True])
def test_what_takes_minutes_is_compared_where_its_file_is_named(
    run: RunSession, named: bool
) -> None:
    result = run("--collect-only", "-q", *["test_long.py"] * named)
    assert ("test_long.py::test_long" in result.outlines) is named


def test_each_has_a_verdict_of_its_own(run: RunSession) -> None:
    result = run("-v", "-k", "quick")
    result.stdout.fnmatch_lines(
        [
            "*::test_quick?fp32? PASSED*",
            "*::TestInner::test_quick PASSED*",
            "left out, since they judge one tree by itself: test_more",
            "SAME *figure*1.000x (100 B -> 100 B)*",
        ]
    )
    assert result.ret == 0


def test_a_file_that_cannot_be_collected_is_an_error(run: RunSession) -> None:
    result = run(errors={"test_speed.py": "ModuleNotFoundError: No module named 'nothing'"})
    result.stdout.fnmatch_lines(
        ["*ERROR collecting test_speed.py*", "ModuleNotFoundError: No module named 'nothing'"]
    )
    assert result.ret == pytest.ExitCode.INTERRUPTED


def test_a_folder_that_cannot_be_collected_is_an_error_of_its_files(run: RunSession) -> None:
    result = run(errors={"inner": "inner/te: broken conftest"})
    result.stdout.fnmatch_lines(["*ERROR collecting inner/test_more.py*", "*broken conftest"])
    assert result.ret == pytest.ExitCode.INTERRUPTED
