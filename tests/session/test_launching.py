"""--perf-ranks: what it refuses, and what it makes of how torchrun says that ranks ended."""

from pathlib import Path

import pytest
from suites import Suite, timed, usage_error

from perfsuite.bisecting.bisection_session import BisectionSession
from perfsuite.session.launching import _outcome


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Suite:
    suite = Suite(pytester, monkeypatch)
    suite.write("test_steps.py", timed("test_a"))
    return suite


def printed(folder: Path, **ranks: str) -> Path:
    """Return a folder with what ranks printed as errors."""
    for name, text in ranks.items():
        path = folder / "run" / "attempt_0" / name.removeprefix("rank") / "stderr.log"
        path.parent.mkdir(parents=True)
        path.write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize("ranks", ["0", "-2", "two", "1.5"])
def test_what_is_no_number_of_ranks_is_refused(suite: Suite, ranks: str) -> None:
    result = suite.run(f"--perf-ranks={ranks}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert f"--perf-ranks: invalid number of ranks value: '{ranks}'" in result.stderr.str()


def test_one_rank_is_a_session_as_it_is(suite: Suite) -> None:
    suite.run("--perf-ranks=1").assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("option", "why"),
    [
        ("-n2", "--perf-ranks cannot measure under xdist; run with -n0"),
        ("--pdb", "--perf-ranks: ranks have no terminal for a debugger"),
        ("--trace", "--perf-ranks: ranks have no terminal for a debugger"),
    ],
)
def test_what_ranks_cannot_do_is_refused(suite: Suite, option: str, why: str) -> None:
    assert why in usage_error(suite.run("--perf-ranks=2", option))


def test_who_starts_ranks_by_itself_is_run_in_this_process(
    suite: Suite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a bisection does, in the processes that it compares."""
    monkeypatch.setattr("perfsuite.session.launching.launch", lambda *_: pytest.fail("torchrun"))
    suite.pytester.makepyfile(bisection="starts_ranks = True")
    suite.pytester.syspathinsert()
    suite.run("-pbisection", "--perf-ranks=2", "--collect-only").assert_outcomes()
    assert BisectionSession.starts_ranks


@pytest.mark.parametrize("asked", [1, 3])
def test_in_a_rank_another_number_of_ranks_is_refused(
    suite: Suite, monkeypatch: pytest.MonkeyPatch, asked: int
) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    line = usage_error(suite.run(f"--perf-ranks={asked}"))
    assert line.startswith(f"ERROR: --perf-ranks {asked}: torchrun has started 2 ranks; drop the")


@pytest.mark.parametrize("ours", [True, False])
def test_other_ranks_of_a_suite_print_no_header_and_those_of_others_do(
    suite: Suite, monkeypatch: pytest.MonkeyPatch, ours: bool
) -> None:
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    suite.write("test_steps.py", "def test_code():\n    pass\n")
    if not ours:
        suite.remove("thresholds.toml")
    result = suite.run()
    result.assert_outcomes(passed=1)
    assert ("test session starts" in result.stdout.str()) is not ours


def test_a_green_session_says_nothing(tmp_path: Path) -> None:
    assert _outcome([], 2, tmp_path, "") == (0, [])


@pytest.mark.parametrize("code", [1, 2, 4, 5])
def test_rank_0_says_by_itself_why_it_failed(tmp_path: Path, code: int) -> None:
    assert _outcome([(0, code)], 2, tmp_path, "") == (code, [])


def test_what_rank_0_said_is_not_said_again_for_others(tmp_path: Path) -> None:
    folder = printed(tmp_path, rank0="ERROR: 2 ranks\n", rank1="ERROR: 2 ranks\n")
    assert _outcome([(1, 4), (0, 4)], 2, folder, "ERROR: 2 ranks\n") == (4, [])


def test_what_another_rank_said_is_said_in_its_place(tmp_path: Path) -> None:
    folder = printed(tmp_path, rank1="noise\n\nERROR: rank 0 of 2 is gone\n")
    assert _outcome([(1, 1), (0, -15)], 2, folder, "") == (1, ["rank 0 of 2 is gone"])


@pytest.mark.parametrize("killed", [0, 1])
def test_a_rank_that_could_say_nothing_is_told_by_its_signal(tmp_path: Path, killed: int) -> None:
    folder = printed(tmp_path, rank1="ERROR: rank 0 of 2 is gone\n")
    code, (line,) = _outcome([(killed, -9), (1 - killed, -15)], 2, folder, "")
    assert code == 1
    assert line == (
        f"rank {killed} of 2 ended with SIGKILL, as a process does that takes more memory than"
        f" there is; see {tmp_path}"
    )


def test_another_ranks_last_line_is_told_where_it_said_no_cause(tmp_path: Path) -> None:
    folder = printed(tmp_path, rank1="Traceback\nImportError: no module\n\n")
    assert _outcome([(1, 3), (0, -15)], 2, folder, "") == (
        3,
        [f"rank 1 of 2 ended with exit code 3, saying: ImportError: no module; see {folder}"],
    )


def test_a_torchrun_that_failed_is_told_with_its_log(tmp_path: Path) -> None:
    code, (line,) = _outcome(None, 2, tmp_path, "")
    assert code == pytest.ExitCode.INTERNAL_ERROR
    assert line == f"torchrun has failed: {tmp_path / 'torchrun.log'}"
