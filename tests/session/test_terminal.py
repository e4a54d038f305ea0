"""What a session shows at its end: red verdicts, and the table of all of them."""

import re
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from suites import HEAD, Suite, timed

from perfsuite.devices.cpu import Cpu
from perfsuite.judging.gates import Outcome, Verdict, not_gated
from perfsuite.session.terminal import verdict_table

LONG = Verdict(
    gate="compare step_s",
    outcome=Outcome.FAIL,
    figure="1.097x [1.063, 1.121] (18.53 ms -> 20.36 ms)",
    threshold="at most 5.0% worse than the 3 promoted runs",
    reason="fewer than 3 runs: their spread is assumed; promote more, since a spread that is"
    " assumed says little of this machine",
)
INTERVAL = Verdict(
    gate="amp_speedup",
    outcome=Outcome.INCONCLUSIVE,
    figure="1.300x [1.200, 1.400]",
    threshold="at least 1.3x",
    reason="too noisy to say",
)
FINITE = Verdict(gate="finite", outcome=Outcome.PASS, figure="all are finite", threshold="finite")
UNGATED = not_gated("step_s", "0.01 s")
SPEEDUP = "test_amp.py::test_amp_speedup[fp16-vs-fp32]"


def shown(*rows: tuple[str, Verdict], width: int = 100) -> str:
    """Return a table as it is shown."""
    return "".join(f"{row}\n" for _, row in verdict_table(rows, width=width))


def test_the_columns_are_aligned_and_reasons_are_indented() -> None:
    rows = [("a.py::test_a", FINITE), ("a.py::test_b", UNGATED), (SPEEDUP, INTERVAL)]
    assert (
        shown(*rows)
        == """\
verdict       benchmark and gate         found                  required
INCONCLUSIVE  amp_speedup[fp16-vs-fp32]  1.300x [1.200, 1.400]  at least 1.3x
              too noisy to say
NOT GATED     b step_s                   0.01 s                 no threshold is set
PASS          a finite                   all are finite         finite
"""
    )


def test_what_does_not_fit_is_wrapped_within_its_column() -> None:
    key = "a.py::test_step_time_of_a_network[fp16-channels_last-compiled]"
    assert (
        shown((key, LONG), ("a.py::test_a", FINITE))
        == """\
verdict  benchmark and gate             found                          required
FAIL     step_time_of_a_network[fp16-   1.097x [1.063, 1.121] (18.53   at most 5.0% worse than the 3
         channels_last-compiled]        ms -> 20.36 ms)                promoted runs
         compare step_s
         fewer than 3 runs: their spread is assumed; promote more, since a spread that is assumed
         says little of this machine
PASS     a finite                       all are finite                 finite
"""
    )


def test_a_narrow_terminal_gets_a_table_of_60_columns() -> None:
    assert (
        shown((SPEEDUP, INTERVAL), width=10)
        == """\
verdict       benchmark and   found            required
              gate
INCONCLUSIVE  amp_speedup[fp  1.300x [1.200,   at least 1.3x
              16-vs-fp32]     1.400]
              too noisy to say
"""
    )


words = st.lists(st.text("abc[]-> 0.", min_size=1, max_size=120), min_size=1, max_size=3)


@given(
    texts=st.lists(st.tuples(words, words, words, words), min_size=1, max_size=4),
    width=st.integers(0, 300),
)
def test_no_line_is_longer_than_the_table_and_nothing_is_lost(
    texts: list[tuple[list[str], ...]], width: int
) -> None:
    joined = [[" ".join(each) for each in row] for row in texts]
    rows = [
        (f"a.py::test_{name}", replace(LONG, figure=figure, threshold=threshold, reason=reason))
        for name, figure, threshold, reason in joined
    ]
    table = verdict_table(rows, width=width)
    lines = [line for _, row in table for line in row.split("\n")]
    assert max(map(len, lines)) <= max(width, 60)
    found = Counter("".join("".join(lines).split()))
    for row in joined:
        for text in row:
            found.subtract("".join(text.split()))
    assert min(found.values()) >= 0


def test_each_row_has_its_outcome_and_the_worst_comes_first() -> None:
    rows = [("a.py::test_a", FINITE), ("a.py::test_b", UNGATED), (SPEEDUP, INTERVAL)]
    assert [outcome for outcome, _ in verdict_table(rows)] == [
        None,
        Outcome.INCONCLUSIVE,
        Outcome.NOT_GATED,
        Outcome.PASS,
    ]


def test_no_verdicts_make_no_table() -> None:
    assert verdict_table([]) == []


# One benchmark for each outcome; the gate is at_most of an estimate about 1.5.
GATED = (
    HEAD
    + """
from perfsuite.judging.gates import at_most
from perfsuite.judging.estimates import Estimate

RATIO = Estimate(value=1.5, low=1.4, high=1.6, confidence=0.99, n=10)


def test_passes(perf):
    measure(perf)
    perf.gate(at_most("peak_ratio", RATIO, 2.0))


def test_is_not_gated(perf):
    measure(perf)
    perf.gate(at_most("peak_ratio", RATIO, None))


def test_fails(perf):
    measure(perf)
    perf.gate(at_most("peak_ratio", RATIO, 1.0))


def test_straddles(perf):
    measure(perf)
    perf.gate(at_most("peak_ratio", RATIO, 1.5))


def test_shows(perf):
    perf.timed([STEP_S])
    perf.show("epoch  fp32 loss\\n    1    0.1234")
"""
)


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Suite:
    return Suite(pytester, monkeypatch)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("fails", "FAIL peak_ratio: 1.500x [[]1.400, 1.600[]]; required: at most 1x"),
        (
            "straddles",
            "INCONCLUSIVE peak_ratio: 1.500x [[]1.400, 1.600[]]; required: at most 1.5x"
            " (the threshold lies inside the interval of 10 values that scatter by 0.0%:"
            " too noisy to say)",
        ),
    ],
    ids=["fail", "inconclusive"],
)
def test_a_failing_gate_fails_its_item_with_the_verdict(suite: Suite, name: str, line: str) -> None:
    suite.write("test_steps.py", GATED)
    result = suite.run("-k", name)
    assert result.ret == 1
    result.assert_outcomes(failed=1, deselected=4)
    result.stdout.fnmatch_lines([f"_* test_{name} _*", line, "=* perfsuite =*"])
    assert "Traceback" not in result.stdout.str()


def test_two_failing_gates_are_both_named(suite: Suite) -> None:
    second = '    perf.gate(at_most("activation_ratio", RATIO, 1.2))\n'
    suite.write("test_steps.py", GATED.replace("RATIO, 1.0))\n", f"RATIO, 1.0))\n{second}"))
    result = suite.run("-k", "fails")
    result.stdout.fnmatch_lines(["FAIL peak_ratio: *", "FAIL activation_ratio: *"])


def test_a_figure_without_a_threshold_is_shown_as_not_gated(suite: Suite) -> None:
    suite.write("test_steps.py", GATED)
    result = suite.run("-k", "gated")
    assert result.ret == 0
    assert re.search(
        r"^NOT GATED  is_not_gated peak_ratio  1\.500x \[1\.400, 1\.600\] +no threshold is set$",
        result.stdout.str(),
        re.MULTILINE,
    )
    assert "1 NOT GATED" in result.outlines
    assert "PASS" not in result.stdout.str()


def test_a_figure_without_a_gate_is_not_gated_until_it_is_compared(suite: Suite) -> None:
    suite.write("test_steps.py", timed("test_a"))
    row = r"^NOT GATED  a step_s +0\.01 s +compared with a baseline only$"
    assert re.search(row, suite.run().stdout.str(), re.MULTILINE)
    suite.baseline()
    compared = suite.compare()
    assert "NOT GATED" not in compared.stdout.str()
    assert "1 PASS" in compared.outlines


def test_the_table_has_every_verdict_and_the_worst_first(suite: Suite) -> None:
    suite.write("test_steps.py", GATED)
    result = suite.run()
    assert result.ret == 1
    text = result.stdout.str()
    lines = re.split(r"^=+ perfsuite =+$", text, flags=re.MULTILINE)[1].splitlines()
    assert lines[1].startswith(f"{Cpu().hardware()}, torch ")
    assert lines.index("epoch  fp32 loss") == lines.index("    1    0.1234") - 1
    rows = [line for line in lines if re.match(r"[A-Z][A-Z ]+  \w", line)]
    assert [re.split(r"  +", row)[:2] for row in rows] == [
        ["FAIL", "fails peak_ratio"],
        ["INCONCLUSIVE", "straddles peak_ratio"],
        ["NOT GATED", "is_not_gated peak_ratio"],
        ["PASS", "passes peak_ratio"],
    ]
    assert "1 PASS, 1 FAIL, 1 INCONCLUSIVE, 1 NOT GATED" in lines
