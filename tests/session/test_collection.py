"""Collection, where pytest-benchmark's own comparison lets a removed or new benchmark through.

A benchmark that is on one side only cannot be compared, so that it fails.
"""

import shlex
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from suites import HEAD, THRESHOLDS, Suite, plain, timed

from perfsuite.records.promotion import promote

JUDGED = ("--benchmark-compare", "--benchmark-compare-fail=mean:5%")
JUDGEABLE = "required: a figure that can be judged"
REMOVED = f"is in the baseline and was not collected; {JUDGEABLE} (removed, renamed, or in a file"
ADDED = f"is in no promoted run; {JUDGEABLE} (new or renamed since the baseline; promote runs"


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Suite:
    return Suite(pytester, monkeypatch)


@pytest.fixture
def without_b(suite: Suite) -> Suite:
    """Return a suite whose baseline has one more benchmark in each of two files."""
    suite.write("test_one.py", timed("test_a", "test_b"))
    suite.write("more/test_two.py", timed("test_c", "test_d"))
    suite.baseline()
    suite.write("test_one.py", timed("test_a"))
    suite.write("more/test_two.py", timed("test_c"))
    return suite


@pytest.mark.parametrize(
    ("now", "failed", "named"),
    [
        (["test_a", "test_b", "test_c"], ["test_c"], [f"test_c {ADDED}"]),
        (["test_a", "test_c"], ["test_b", "test_c"], [f"test_b {REMOVED}", f"test_c {ADDED}"]),
        (["test_a"], ["test_b"], [f"test_b {REMOVED}"]),
    ],
    ids=["new", "renamed", "removed"],
)
def test_new_renamed_and_removed_benchmarks_fail(
    suite: Suite, now: list[str], failed: list[str], named: list[str]
) -> None:
    before = ["test_a", "test_b"]
    suite.write("test_steps.py", plain(*before))
    assert suite.run_plain("--benchmark-save=before").ret == 0
    suite.write("test_steps.py", plain(*now))
    assert suite.run_plain(*JUDGED).ret == 0

    suite.write("test_steps.py", timed(*before))
    suite.baseline()
    suite.write("test_steps.py", timed(*now))
    ours = suite.compare("--junitxml=junit.xml")
    assert ours.ret == 1
    ours.assert_outcomes(passed=len(set(now) & set(before)), failed=len(failed))
    report = {
        case.get("name"): (case.findtext("failure") or "").replace("\n", " ")
        for case in ET.parse(suite.folder / "junit.xml").iter("testcase")
    }
    assert sorted(name for name, failure in report.items() if name and failure) == failed
    for name in failed:
        ours.stdout.fnmatch_lines([f"FAILED test_steps.py::{name} - *"])
    for message in named:
        assert message in " ".join(report.values())


def test_a_node_id_without_parameters_selects_them_all(suite: Suite) -> None:
    parametrized = (
        f"import pytest\n{HEAD}\n@pytest.mark.parametrize('n', %s)\n"
        "def test_b(perf, n):\n    measure(perf)\n"
    )
    suite.write("test_one.py", parametrized % "[1, 2]")
    suite.baseline()
    suite.write("test_one.py", parametrized % "[1]")
    suite.compare("test_one.py::test_b").assert_outcomes(passed=1, failed=1)
    suite.compare("test_one.py::test_b[1]").assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        (HEAD + "class TestB:\n    def test_b(self, perf):\n        measure(perf)\n", "TestB"),
        (
            "import pytest\n"
            + HEAD
            + "@pytest.mark.parametrize('n', ['x::y', 'z'])\ndef test_b(perf, n):\n"
            "    measure(perf)\n",
            "test_b",
        ),
    ],
    ids=["in-a-class", "parametrized"],
)
def test_a_removed_benchmark_in_a_class_or_with_parameters_fails(
    suite: Suite, source: str, name: str
) -> None:
    suite.write("test_one.py", timed("test_a"))
    suite.write("test_two.py", source)
    suite.baseline()
    assert suite.compare().ret == 0
    suite.write("test_two.py", "def test_b():\n    pass\n")
    assert suite.compare().ret == 1
    assert suite.compare("-k", "not two").ret == 0
    assert suite.compare("test_one.py").ret == 0
    result = suite.compare("test_two.py", "test_one.py")
    assert result.ret == 1
    assert f"FAILED test_two.py::{name}" in result.stdout.str()


# What a session was not asked for it need not answer for; what it was asked for, it must.
@pytest.mark.parametrize(
    ("asked", "removed"),
    [
        ("", 2),
        (".", 2),
        ("--benchmark-only", 2),
        ("test_one.py", 1),
        ("more", 1),
        ("more/../test_one.py", 1),
        ("test_one.py more/test_two.py", 2),
        ("test_one.py::test_a", 0),
        ("test_one.py::test_a more", 1),
        ("-k 'test_a or test_c'", 0),
        ("-k 'test_a or test_b'", 1),
        ("-k 'not test_d'", 1),
        ("--deselect=test_one.py::test_b", 1),
        ("--deselect=test_one.py::test_b --deselect=more/test_two.py::test_d", 0),
        ("--ignore=more", 1),
        ("--ignore=more/test_two.py", 1),
        ("--ignore=more/../more/test_two.py", 1),
        ("--ignore-glob=*two*", 1),
        ("--ignore=more --deselect=test_one.py::test_b", 0),
    ],
)
def test_removed_benchmarks_fail_only_where_the_arguments_select_them(
    without_b: Suite, asked: str, removed: int
) -> None:
    result = without_b.compare(*shlex.split(asked))
    assert result.ret == (1 if removed else 0)
    assert result.parseoutcomes().get("failed", 0) == removed


def test_the_benchmarks_of_a_removed_file_fail(without_b: Suite) -> None:
    without_b.remove("more/test_two.py")
    without_b.compare().assert_outcomes(passed=1, failed=3)
    without_b.compare("more", "test_one.py").assert_outcomes(passed=1, failed=3)


def test_the_removed_last_benchmark_of_a_suite_fails(suite: Suite) -> None:
    """Nothing collected uses `perf` any more, but the baseline lies there."""
    suite.write("test_steps.py", timed("test_a"))
    suite.baseline()
    suite.write("test_steps.py", "def test_a():\n    pass\n")
    assert suite.compare().ret != 0


@pytest.mark.parametrize("asked", [".", "benchmarks"])
@pytest.mark.parametrize("left", ["benchmarks/test_steps.py", "test_code.py"])
def test_the_removed_last_benchmark_of_a_suite_in_a_subfolder_fails(
    suite: Suite, asked: str, left: str
) -> None:
    suite.remove("thresholds.toml")
    suite.write("benchmarks/thresholds.toml", THRESHOLDS)
    suite.write("benchmarks/test_steps.py", timed("test_a"))
    promote([suite.record()], suite.folder / "benchmarks", allow_dirty=True)
    suite.remove("benchmarks/test_steps.py")
    suite.write(left, "def test_a():\n    pass\n")
    assert suite.compare(asked).ret != 0


@pytest.mark.parametrize(("marker", "removed"), [("slow", 1), ("not slow", 0)])
def test_a_removed_benchmark_is_selected_by_its_marker(
    suite: Suite, marker: str, removed: int
) -> None:
    suite.write("pytest.ini", "[pytest]\nmarkers = slow\n")
    slow = f"import pytest\n{timed('test_a', 'test_b', 'test_c')}".replace(
        "def test_", "@pytest.mark.slow\ndef test_"
    )
    slow = slow.replace("@pytest.mark.slow\ndef test_a", "def test_a")
    suite.write("test_steps.py", slow)
    suite.baseline()
    suite.write(
        "test_steps.py", slow.replace("def test_c(perf):\n    measure(perf)", "def no(): ...")
    )
    result = suite.compare("-m", marker)
    assert result.parseoutcomes().get("failed", 0) == removed
    assert result.ret == removed


@pytest.mark.parametrize(
    "marker", ["skipif(False, reason='never')", "xfail(False, reason='never')", "usefixtures()"]
)
def test_a_removed_benchmark_fails_whatever_it_was_marked_with(suite: Suite, marker: str) -> None:
    """Without its condition such a marker would mean another thing."""
    marked = f"\n@pytest.mark.{marker}\ndef test_b(perf):\n    measure(perf)\n"
    suite.write("test_steps.py", f"import pytest\n{timed('test_a')}{marked}")
    suite.baseline()
    suite.write("test_steps.py", timed("test_a"))
    result = suite.compare()
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["FAILED test_steps.py::test_b - *"])


def test_a_removed_benchmark_fails_with_last_failed_too(without_b: Suite) -> None:
    """Else the second attempt is green: pytest runs all if it finds none of the last failures."""
    cached = ("-p", "cacheprovider")
    assert without_b.compare(*cached).ret == 1
    assert without_b.compare(*cached, "--lf").ret == 1


def test_a_suite_named_by_a_symbolic_link(without_b: Suite, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(without_b.folder, target_is_directory=True)
    without_b.compare(link).assert_outcomes(passed=2, failed=2)
    without_b.compare(link / "more").assert_outcomes(passed=1, failed=1)


def test_a_suite_named_as_a_package(
    suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite.write("steps/__init__.py", "")
    suite.write("steps/test_steps.py", timed("test_a", "test_b"))
    suite.baseline()
    suite.write("steps/test_steps.py", timed("test_a"))
    monkeypatch.syspath_prepend(suite.folder)
    monkeypatch.chdir(tmp_path)
    suite.compare("--pyargs", "steps").assert_outcomes(passed=1, failed=1)
