"""What takes minutes runs where its file is named, and `perfsuite advise-step` names one."""

from pathlib import Path

import pytest
from suites import HEAD, Suite

from perfsuite.__main__ import main

LONG = f"""{HEAD}
import pytest

@pytest.mark.when_named
def test_long(perf):
    measure(perf)
"""
SHORT = f"{HEAD}\ndef test_short(perf):\n    measure(perf)\n"


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Suite:
    suite = Suite(pytester, monkeypatch)
    suite.write("test_long.py", LONG)
    suite.write("test_short.py", SHORT)
    return suite


def test_it_is_left_out_unless_its_file_is_named(suite: Suite) -> None:
    suite.run().assert_outcomes(passed=1, deselected=1)
    suite.run("test_long.py").assert_outcomes(passed=1)
    suite.run("test_long.py::test_long", "test_short.py").assert_outcomes(passed=2)


def test_promoted_runs_that_have_it_do_not_ask_for_it(suite: Suite) -> None:
    suite.promote(suite.record("test_long.py", "test_short.py"))
    suite.run("--benchmark-compare").assert_outcomes(passed=1, deselected=1)
    (suite.folder / "test_long.py").write_text(SHORT, encoding="utf-8")
    result = suite.run("test_long.py", "--benchmark-compare")
    assert "test_long.py::test_long is in the baseline and was not collected" in result.stdout.str()


def test_a_suite_without_the_file_is_told_to_write_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["advise-step", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"perfsuite: {tmp_path / 'test_step_advice.py'}: there is no such file")
    assert "from perfsuite.benchmarks.step_advice import test_step_advice" in error


@pytest.mark.parametrize(("text", "code"), [("pass", 0), ("assert False", 1)])
def test_the_advice_ends_as_its_session_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, code: int
) -> None:
    asked: list[list[str]] = []

    def call(command: list[str]) -> int:
        asked.append(command)
        return 2 * code

    monkeypatch.setattr("subprocess.call", call)
    (tmp_path / "test_step_advice.py").write_text(text, encoding="utf-8")
    options = ["--perf-device", "cpu"]
    assert main(["advise-step", str(tmp_path), *options]) == code
    assert asked[0][1:] == ["-m", "pytest", str(tmp_path / "test_step_advice.py"), "-q", *options]


def test_a_folder_that_is_none_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["advise-step", "nowhere"]) == 1
    assert capsys.readouterr().err.startswith("perfsuite: nowhere: no folder of benchmarks; name")
