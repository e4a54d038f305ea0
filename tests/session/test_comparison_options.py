"""Options under which pytest-benchmark's own comparison lets a regression through.

Each test first shows pytest-benchmark alone, so that we learn of it when it changes.
"""

from xml.etree import ElementTree as ET

import pytest
from suites import HARDWARE, Suite, plain, timed, usage_error

JUDGED = ("--benchmark-compare", "--benchmark-compare-fail=mean:5%")


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Suite:
    return Suite(pytester, monkeypatch)


def regressed_under_pytest_benchmark(suite: Suite, *arguments: str) -> pytest.RunResult:
    """Save a run of pytest-benchmark's, and judge one that takes twice as long by it."""
    suite.write("test_steps.py", plain("test_a"))
    assert suite.run_plain("--benchmark-save=before").ret == 0
    suite.step_s(0.02)
    result = suite.run_plain(*arguments)
    suite.step_s(0.01)
    return result


@pytest.mark.parametrize("arguments", [(), ("-k", "test_a"), ("--benchmark-autosave",)])
def test_a_missing_baseline_is_refused(suite: Suite, arguments: tuple[str, ...]) -> None:
    suite.write("test_steps.py", plain("test_a"))
    theirs = suite.run_plain("--benchmark-compare", *arguments)
    assert theirs.ret == 0
    assert "Can't compare. No benchmark files" in theirs.stderr.str()

    suite.write("test_steps.py", timed("test_a"))
    line = usage_error(suite.compare(*arguments))
    assert str(suite.folder / "baselines" / HARDWARE) in line
    assert "no promoted run of this hardware" in line
    assert "perfsuite promote" in line


def test_a_missing_baseline_with_benchmarks_disabled_is_refused(suite: Suite) -> None:
    suite.write("test_steps.py", plain("test_a"))
    assert suite.run_plain(*JUDGED, "--benchmark-disable").ret == 0

    suite.write("test_steps.py", timed("test_a"))
    line = usage_error(suite.run(*JUDGED, "--benchmark-disable"))
    assert "--benchmark-disable" in line
    assert "drop the option" in line


def test_disabled_benchmarks_are_refused(suite: Suite) -> None:
    assert regressed_under_pytest_benchmark(suite, *JUDGED, "--benchmark-disable").ret == 0

    suite.write("test_steps.py", timed("test_a"))
    suite.baseline()
    suite.step_s(0.02)
    for result in (suite.compare("--benchmark-disable"), suite.run("--benchmark-disable")):
        refused = "--benchmark-disable: perfsuite could not evaluate its gates; drop the option"
        assert refused in usage_error(result)
    assert suite.compare("--benchmark-disable", "--benchmark-enable").ret == 1


@pytest.mark.slow
def test_xdist_workers_are_refused(suite: Suite) -> None:
    theirs = regressed_under_pytest_benchmark(suite, *JUDGED, "-n2")
    assert theirs.ret == 0
    theirs.assert_outcomes(passed=1)

    suite.write("test_steps.py", timed("test_a"))
    suite.baseline()
    # The same figure: it is not the figure that fails. One worker, because it imports torch.
    ours = suite.compare("-n1")
    assert ours.ret == 1
    ours.assert_outcomes(errors=1)
    ours.stdout.fnmatch_lines(["perfsuite cannot measure under xdist; run with -n0"])
    assert suite.compare("-n0").ret == 0


def test_a_regression_fails_its_own_item(suite: Suite) -> None:
    theirs = regressed_under_pytest_benchmark(suite, *JUDGED, "--junitxml=theirs.xml")
    assert theirs.ret != 0
    assert "Traceback" in theirs.stderr.str()
    assert "FAILED" not in theirs.stdout.str()
    counts = ET.parse(suite.folder / "theirs.xml").find("testsuite")
    assert counts is not None
    assert (counts.get("failures"), counts.get("errors")) == ("0", "0")

    suite.write("test_steps.py", timed("test_a", "test_b"))
    suite.baseline()
    suite.step_s(0.02)
    ours = suite.compare("--junitxml=ours.xml", "-k", "test_a")
    assert ours.ret == 1
    ours.stdout.fnmatch_lines(
        ["FAIL compare step_s: 2.000x *(0.01 -> 0.02 s); required: at most 5.0% worse*"]
    )
    ours.stdout.fnmatch_lines(["FAILED test_steps.py::test_a - *FAIL compare step_s*"])
    (case,) = ET.parse(suite.folder / "ours.xml").iter("testcase")
    failure = case.find("failure")
    assert case.get("name") == "test_a"
    assert failure is not None
    assert "FAIL compare step_s: 2.000x" in (failure.text or "")


def test_the_first_regression_ends_a_session_with_exitfirst(suite: Suite) -> None:
    suite.write("test_steps.py", timed("test_a", "test_b"))
    suite.baseline()
    suite.step_s(0.02)
    suite.compare().assert_outcomes(failed=2)
    stopped = suite.compare("-x")
    assert stopped.ret == 1
    stopped.assert_outcomes(failed=1)


def test_the_limits_of_pytest_benchmark_are_refused(suite: Suite) -> None:
    lax = (*JUDGED, "--benchmark-compare-fail=mean:500%")
    assert regressed_under_pytest_benchmark(suite, *lax).ret == 0

    suite.write("test_steps.py", timed("test_a"))
    suite.baseline()
    for arguments in (JUDGED, lax, ("--benchmark-compare-fail=mean:5%",)):
        line = usage_error(suite.run(*arguments))
        assert "--benchmark-compare-fail" in line
        assert "thresholds.toml, table [compare]; drop the option" in line


def test_a_comparison_with_benchmark_skip_is_refused(suite: Suite) -> None:
    assert regressed_under_pytest_benchmark(suite, *JUDGED, "--benchmark-skip").ret == 0

    suite.write("test_steps.py", timed("test_a"))
    suite.baseline()
    line = usage_error(suite.compare("--benchmark-skip"))
    assert "--benchmark-skip leaves nothing for --benchmark-compare to judge" in line
    assert suite.compare("-k", "nothing").ret == pytest.ExitCode.NO_TESTS_COLLECTED
    assert suite.compare("--deselect=test_steps.py").ret == pytest.ExitCode.NO_TESTS_COLLECTED
    # Without a comparison nothing is asked for that could be missing.
    assert suite.run("--benchmark-skip").ret == 0


SKIP = "import pytest\n\n@pytest.fixture(autouse=True)\ndef skip():\n    pytest.skip('not today')\n"


@pytest.mark.parametrize(
    ("conftest", "decorator", "first"),
    [
        ("", "@pytest.mark.skip(reason='not today')\n", ""),
        ("", "", "    pytest.skip('not today')\n"),
        ("", "", "    pytest.xfail('not today')\n"),
        (SKIP, "", ""),
    ],
    ids=["by-a-marker", "in-its-body", "expected-to-fail", "by-a-fixture"],
)
def test_a_skipped_benchmark_fails_the_comparison(
    suite: Suite, conftest: str, decorator: str, first: str
) -> None:
    def skipped(source: str) -> str:
        marked = source.replace("def test_", f"{decorator}def test_")
        return "import pytest\n" + marked.replace("):\n    measure", f"):\n{first}    measure")

    suite.write("test_steps.py", plain("test_a"))
    suite.run_plain("--benchmark-save=before")
    suite.write("conftest.py", conftest)
    suite.write("test_steps.py", skipped(plain("test_a")))
    assert suite.run_plain(*JUDGED).ret == 0

    suite.write("conftest.py", "")
    suite.write("test_steps.py", timed("test_a"))
    suite.baseline()
    suite.write("conftest.py", conftest)
    suite.write("test_steps.py", skipped(timed("test_a")))
    ours = suite.compare()
    assert ours.ret == 1
    told = "skipped and not compared, so the session fails: test_steps.py::test_a"
    ours.stdout.fnmatch_lines([told])
    assert suite.run().ret == 0


@pytest.mark.parametrize("option", ["--setup-only", "--setup-plan"])
def test_a_benchmark_that_was_only_set_up_fails_the_comparison(suite: Suite, option: str) -> None:
    suite.write("test_steps.py", timed("test_a"))
    suite.baseline()
    assert suite.compare(option).ret != 0


def test_a_session_that_compares_no_figure_fails(suite: Suite) -> None:
    """pytest-benchmark checks nothing where it has no group; here there is no figure."""
    suite.write("test_steps.py", "def test_a(perf):\n    perf.timed([0.01])\n")
    suite.baseline()
    result = suite.compare()
    assert "no gate was evaluated" in result.outlines
    assert result.ret != 0


@pytest.mark.parametrize("option", ["--collect-only", "--fixtures", "--fixtures-per-test"])
@pytest.mark.parametrize("compare", [(), ("--benchmark-compare",)], ids=["alone", "compare"])
def test_options_that_only_list_tests_need_no_figures(
    suite: Suite, option: str, compare: tuple[str, ...]
) -> None:
    suite.write("test_steps.py", timed("test_a"))
    suite.baseline()
    result = suite.run(option, *compare)
    assert result.ret == 0
    assert "the session fails" not in result.stdout.str()


def test_a_comparison_with_a_numbered_run_is_refused(suite: Suite) -> None:
    suite.write("test_steps.py", timed("test_a"))
    suite.baseline()
    line = usage_error(suite.run("--benchmark-compare=0001"))
    assert "--benchmark-compare=0001: perfsuite compares with the promoted runs" in line
    assert "give the option without a value" in line


@pytest.mark.parametrize("swallowed", ["benchmarks", "benchmarks/test_steps.py"])
@pytest.mark.parametrize("else_collected", ["all", "tests"])
def test_a_path_taken_for_the_value_of_benchmark_compare_is_refused(
    suite: Suite, swallowed: str, else_collected: str
) -> None:
    """The option takes the path for its value, and what is collected is something else."""
    suite.write("tests/test_code.py", "def test_code():\n    pass\n")
    if else_collected == "tests":
        suite.write("pytest.ini", "[pytest]\ntestpaths = tests\n")
    suite.write("benchmarks/test_steps.py", plain("test_a"))
    assert suite.run_plain("--benchmark-compare", swallowed).ret == 0

    suite.write("benchmarks/test_steps.py", timed("test_a"))
    line = usage_error(suite.run("--benchmark-compare", swallowed))
    assert swallowed in line
    if swallowed == "benchmarks":
        assert "write `pytest benchmarks --benchmark-compare`" in line


def test_a_comparison_with_benchmarks_of_pytest_benchmark_is_refused(suite: Suite) -> None:
    suite.write("test_steps.py", timed("test_a"))
    suite.baseline()
    suite.write("test_b.py", plain("test_b"))
    line = usage_error(suite.compare())
    assert "test_b.py::test_b does not use the fixture `perf`" in line
    assert "run it in a separate session" in line
    assert suite.compare("test_steps.py").ret == 0
    assert suite.run().ret == 0


def test_a_suite_of_pytest_benchmark_alone_is_compared_by_it(suite: Suite) -> None:
    suite.write("test_steps.py", plain("test_a"))
    missing = suite.run("--benchmark-compare")
    assert missing.ret == 0
    assert "Can't compare. No benchmark files" in missing.stdout.str() + missing.stderr.str()
    assert suite.run("--benchmark-save=before").ret == 0
    same = suite.run(*JUDGED)
    assert same.ret == 0
    assert "Comparing against benchmarks from" in same.stderr.str()
    same.stdout.fnmatch_lines(["test_a (0001_before)*", "test_a (NOW)*"], consecutive=False)
    suite.step_s(0.02)
    assert "Performance has regressed" in suite.run(*JUDGED).stderr.str()
    assert suite.run("--benchmark-compare=0001", "--benchmark-compare-fail=min:5%").ret != 0
