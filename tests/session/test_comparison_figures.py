"""Figures by which pytest-benchmark's own comparison lets a regression through.

A figure that is on one side only, or whose meaning has changed, cannot be compared.
"""

import pytest
from suites import HEAD, THRESHOLDS, Suite, timed


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Suite:
    return Suite(pytester, monkeypatch)


def source(line: str) -> str:
    return f"{HEAD}\ndef test_a(perf):\n    measure(perf)\n    {line}\n"


@pytest.mark.parametrize(
    ("before", "now", "named"),
    [
        ("perf.metric('m', 1, unit='B', better='lower')", "", "m was not measured"),
        ("", "perf.metric('m', 1, unit='B', better='lower')", "m is missing from a promoted run"),
        (
            "perf.metric('m', 1, unit='x', better='higher')",
            "perf.metric('m', 1, unit='x', better='lower')",
            "m: better was higher",
        ),
        (
            "perf.metric('m', 10, unit='s', better='lower')",
            "perf.metric('m', 1, unit='min', better='lower')",
            "m",
        ),
        ("perf.configure(steps=1)", "perf.configure(steps=2)", "steps 1 -> 2"),
        ("perf.configure(steps=1)", "", "steps 1 -> None"),
        ("", "perf.configure(steps=1)", "steps None -> 1"),
    ],
    ids=["gone", "new", "better-flipped", "other-unit", "other-config", "no-config", "new-config"],
)
def test_figures_that_cannot_be_compared_fail(
    suite: Suite, before: str, now: str, named: str
) -> None:
    suite.write("test_steps.py", source(before or "pass"))
    suite.baseline()
    suite.write("test_steps.py", source(now or "pass"))
    result = suite.compare()
    assert result.ret == 1
    result.stdout.fnmatch_lines([f"FAIL compare*{named}*promote*"])


def test_other_data_fails(suite: Suite) -> None:
    suite.write("test_steps.py", source("perf.fresh('fp32')"))
    suite.baseline()
    result = suite.compare("--perf-data=mnist5k")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["FAIL compare*measured differently from the baseline*"])


@pytest.mark.parametrize(
    "settings",
    ["steps=1, lr=0.1", "shape=(3, 4)", "by_size={1: 2}", "where=__import__('pathlib').Path()"],
    ids=["scalars", "tuple", "number-as-key", "no-json"],
)
def test_settings_are_equal_after_they_were_saved_and_read(suite: Suite, settings: str) -> None:
    """Also after they were written to a file and read from it."""
    suite.write("test_steps.py", source(f"perf.configure({settings})"))
    suite.baseline()
    result = suite.compare()
    assert result.ret == 0
    result.stdout.fnmatch_lines(["PASS *compare step_s*1.000x*"])


@pytest.mark.parametrize("better", ["lower", "higher"])
@pytest.mark.parametrize(
    ("factor", "word", "status"),
    [
        (1.0, "PASS", 0),
        (1.01, "PASS", 0),
        (0.2, "PASS", 0),
        (1.05, "INCONCLUSIVE", 1),
        (2, "FAIL", 1),
    ],
    ids=["same", "within", "better", "straddles", "worse"],
)
def test_figures_are_compared_by_margin_and_interval(
    suite: Suite, better: str, factor: float, word: str, status: int
) -> None:
    line = "perf.metric('speedup', 1 / STEP_S, unit='x', better='higher')"
    suite.write("test_steps.py", source(line if better == "higher" else "pass"))
    suite.baseline()
    suite.step_s(0.01 * factor)
    result = suite.compare()
    assert result.ret == status
    gate = "speedup" if better == "higher" else "step_s"
    result.stdout.fnmatch_lines([f"{word} *compare {gate}*"])
    # Its own comparison would look for saved runs, and warn that there are none.
    assert "Can't compare" not in result.stdout.str() + result.stderr.str()


@pytest.mark.parametrize(
    ("warn", "factor", "status"),
    [("", 1.05, 1), ('"mean_loss"', 1.05, 1), ('"compare"', 1.05, 0), ('"compare"', 2, 1)],
    ids=["none", "another-gate", "this-gate", "a-fail-stays-a-fail"],
)
def test_inconclusive_fails_unless_the_gate_is_listed_under_warn(
    suite: Suite, warn: str, factor: float, status: int
) -> None:
    suite.write("thresholds.toml", THRESHOLDS.replace("warn = []", f"warn = [{warn}]"))
    suite.write("test_steps.py", timed("test_a"))
    suite.baseline()
    suite.step_s(0.01 * factor)
    result = suite.compare()
    assert result.ret == status
    word = "INCONCLUSIVE" if factor < 2 else "FAIL"
    result.stdout.fnmatch_lines([f"{word} *a compare step_s *", f"1 {word}"])
