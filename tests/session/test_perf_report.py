"""--perf-report: a page and the run behind it, whatever became of the session."""

from pathlib import Path

import pytest
from reports import read
from suites import HEAD, Suite, load, timed

import perfsuite.report.render

FAILING = (
    HEAD
    + """
from perfsuite.judging.gates import at_most
from perfsuite.judging.estimates import Estimate


def test_fails(perf):
    measure(perf)
    perf.gate(at_most("peak_ratio", Estimate.exact(1.5), 1.0))


def test_crashes(perf):
    raise RuntimeError("out of luck")
"""
)
INTERRUPTED = timed("test_a") + "\n\ndef test_b(perf):\n    raise KeyboardInterrupt\n"


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Suite:
    return Suite(pytester, monkeypatch)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_report_and_the_run_are_written(suite: Suite) -> None:
    suite.write("test_steps.py", timed("test_a"))
    result = suite.run("--perf-report=out")
    assert result.ret == 0
    out = suite.folder / "out"
    assert files(out) == ["report.html", "report.md", "run.json"]
    result.stdout.fnmatch_lines([f"saved {out}/run.json", f"wrote {out}/report.html"])
    found = read(out)
    assert "Green: 1 benchmark, none failed" in found.page.text
    assert found.page.verdicts[1][:3] == ["NOT GATED", "a step_s", "0.01 s"]
    assert suite.saved() == []


def test_every_copy_of_the_run_is_the_same(suite: Suite) -> None:
    suite.write("test_steps.py", timed("test_a"))
    suite.run("--perf-report=out", "--benchmark-json=mine.json", "--benchmark-save=mine")
    ours = (suite.folder / "out" / "run.json").read_bytes()
    assert ours == (suite.folder / "mine.json").read_bytes() == suite.saved()[0].read_bytes()


def test_a_failed_run_has_a_report(suite: Suite) -> None:
    suite.write("test_steps.py", FAILING)
    assert suite.run("--perf-report=out").ret == 1
    found = read(suite.folder / "out")
    assert "Red: 2 of 2 benchmarks failed" in found.page.text
    words = [row[:2] for row in found.page.verdicts if row]
    assert words == [["FAILED", "crashes"], ["FAIL", "fails peak_ratio"]]


def test_an_interrupted_run_is_reported_as_red(suite: Suite) -> None:
    suite.write("test_steps.py", INTERRUPTED)
    assert suite.run("--perf-report=out").ret == pytest.ExitCode.INTERRUPTED
    found = read(suite.folder / "out")
    assert "Red: it did not run to its end" in found.page.text
    assert next(row for row in found.page.verdicts if row)[:2] == ["NOT RUN", "b"]


def test_the_promoted_runs_are_shown_as_history(suite: Suite) -> None:
    suite.write("test_steps.py", timed("test_a"))
    suite.promote(*(suite.record(name=f"run{number}.json") for number in range(3)))
    suite.step_s(0.02)
    assert suite.compare("--perf-report=out").ret == 1
    found = read(suite.folder / "out")
    figure = found.charts("History")["a step_s"]
    assert "4 runs" in figure.label
    assert found.page.verdicts[1][:2] == ["FAIL", "a compare step_s"]


def test_a_session_in_which_a_gate_was_not_evaluated_is_red(suite: Suite) -> None:
    suite.write("test_steps.py", timed("test_a", "test_b"))
    suite.baseline()
    suite.write(
        "test_steps.py",
        timed("test_a", "test_b")
        .replace("def test_b", "@SKIP\ndef test_b")
        .replace("import os", "import os\nimport pytest\nSKIP = pytest.mark.skip"),
    )
    assert suite.compare("--perf-report=out").ret == 1
    found = read(suite.folder / "out")
    assert "Red: not everything was evaluated" in found.page.text
    document = load(suite.folder / "out" / "run.json")
    assert document["perfsuite"]["unevaluated"] == [
        "skipped and not compared, so the session fails: test_steps.py::test_b"
    ]


@pytest.mark.parametrize("name", ["run.json", "report.html", "report.md"])
def test_an_existing_file_is_refused_before_anything_is_measured(suite: Suite, name: str) -> None:
    suite.write("test_steps.py", timed("test_a"))
    mine = suite.write(f"out/{name}", "mine")
    result = suite.run("--perf-report=out")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: --perf-report: {mine} exists and is not overwritten"])
    assert mine.read_text(encoding="utf-8") == "mine"
    assert files(suite.folder / "out") == [name]


def test_a_folder_that_cannot_be_made_is_refused_before_anything_is_measured(suite: Suite) -> None:
    suite.write("test_steps.py", timed("test_a"))
    suite.write("out", "a file")
    result = suite.run("--perf-report=out")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "--perf-report: " in result.stderr.str()
    assert "is not a folder that can be written to" in result.stderr.str()


def test_a_session_that_measured_nothing_writes_a_red_report(suite: Suite) -> None:
    suite.write("test_steps.py", FAILING)
    result = suite.run("--perf-report=out", "--benchmark-json=run.json", "-k", "crashes")
    assert result.ret == 1
    assert files(suite.folder / "out") == ["report.html", "report.md", "run.json"]
    assert "Red: 1 of 1 benchmark failed" in (suite.folder / "out" / "report.md").read_text("utf-8")
    assert not (suite.folder / "run.json").exists()


@pytest.mark.slow
def test_a_session_without_a_report_does_not_import_matplotlib(suite: Suite) -> None:
    suite.write("test_steps.py", timed("test_a"))
    suite.write(
        "conftest.py",
        "import sys\n\n\ndef pytest_unconfigure():\n"
        "    print('DRAWS', sorted({'matplotlib', 'jinja2'} & sys.modules.keys()))\n",
    )
    done = suite.pytester.runpytest_subprocess(
        "--perf-device=cpu", "--perf-data=synthetic", "--capture=no"
    )
    assert "DRAWS []" in done.stdout.str()


BESIDE = "def test_b():\n    assert False\n"
BROKEN = "import nothing_of_that_name\n"
XFAIL = FAILING.replace("def test_fails", "import pytest\n@pytest.mark.xfail\ndef test_fails")
SKIPPED = timed("test_a") + "import pytest\n@pytest.mark.skip\ndef test_b(perf):\n    pass\n"


@pytest.mark.parametrize(
    ("file", "told"),
    [
        (BESIDE, "other failures: test_other.py::test_b"),
        (BROKEN, "other failures: 1 collection error"),
    ],
    ids=["failed", "not-collected"],
)
def test_failures_of_other_tests_make_the_report_red(suite: Suite, file: str, told: str) -> None:
    suite.write("test_steps.py", timed("test_a"))
    suite.write("test_other.py", file)
    assert suite.run("--perf-report=out", "--continue-on-collection-errors").ret == 1
    found = read(suite.folder / "out")
    assert "Red: not everything was evaluated" in found.page.text
    assert told in found.page.text


def test_a_gate_that_is_expected_to_fail_makes_the_report_red(suite: Suite) -> None:
    suite.write("test_steps.py", XFAIL)
    suite.run("--perf-report=out", "-k", "fails")
    assert "Red: 1 of 1 benchmark failed" in read(suite.folder / "out").page.text


def test_the_headline_counts_skipped_benchmarks(suite: Suite) -> None:
    suite.write("test_steps.py", SKIPPED)
    assert suite.run("--perf-report=out").ret == 0
    found = read(suite.folder / "out")
    assert "Green: 2 benchmarks, none failed, 1 skipped" in found.page.text
    assert [
        "SKIPPED",
        "b",
        "no verdict",
        "nothing is required of what is skipped",
    ] in found.page.verdicts


def test_an_error_in_the_report_loses_nothing_else(
    suite: Suite, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("out of ink")

    monkeypatch.setattr(perfsuite.report.render, "page_of", fail)
    suite.write("test_steps.py", timed("test_a"))
    result = suite.run("--perf-report=out", "--junit-xml=x.xml")
    assert result.ret == 1
    told = "the report could not be written, the run is saved: RuntimeError: out of ink"
    assert told in result.outlines
    assert any(line.startswith("NOT GATED  a step_s") for line in result.outlines)
    assert (suite.folder / "x.xml").exists()
    assert files(suite.folder / "out") == ["run.json"]


def test_a_session_with_nothing_to_report_on_says_so_and_is_left_alone(suite: Suite) -> None:
    suite.write("test_other.py", "def test_b():\n    pass\n")
    result = suite.run("--perf-report=out")
    assert result.ret == 0
    assert "no report: no benchmark uses the fixture `perf` of perfsuite" in result.outlines
    assert not (suite.folder / "out").exists()
