"""Blocks in which the device was held back are set aside in sight, and duets know when to end."""

import pytest
from suites import Suite, load

HEAD = """
from itertools import cycle
from types import SimpleNamespace

import pytest

from perfsuite.judging.gates import at_most
from perfsuite.judging.blocks import State
from perfsuite.measuring.timing import time_block
from perfsuite.training.workload import Arm


@pytest.fixture
def arm():
    return SimpleNamespace(
        precision="fp32",
        label="an arm",
        step=lambda *_: None,
        take=lambda steps: [(0, 0)] * steps,
    )


def readings(*bits):
    # Two for each block, before and after it, and two for the benchmark as a whole.
    told = cycle([State(load_1min=0, cpu_mhz=None, clock_event_reasons=each) for each in bits])
    return lambda: next(told)
"""

HELD = """

def test_a(perf, arm):
    perf.sensor = readings({})
    perf.time(arm, blocks=4)
    perf.metric("step_s", 0.01, unit="s", better="lower")
"""

IN_TURNS = """

class Clock:
    def start(self):
        pass

    def stop(self):
        return 1.0, None


def test_a(perf, arm):
    perf.clock = Clock()

    def judge(turns):
        return at_most("peak_ratio", turns.ratio("B", over="A", confidence=0.99), {})

    perf.sensor = readings({})
    turns = perf.duet(arm, arm, judge)
    perf.metric("pairs", len(turns.quads), unit="1", better="higher")
"""


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Suite:
    return Suite(pytester, monkeypatch)


def test_throttled_blocks_are_set_aside_and_counted(suite: Suite) -> None:
    suite.write("test_steps.py", HEAD + HELD.format("0, 0x80, 0, 0, 0, 0, 0, 0"))
    (entry,) = load(suite.record())["benchmarks"]
    record = entry["extra_info"]["perfsuite"]
    assert len(entry["stats"]["data"]) == 3
    assert [block["throttled"] for block in record["raw"]["blocks"]] == [
        ["power brake"],
        [],
        [],
        [],
    ]
    verdict, figure = record["verdicts"]
    assert figure["outcome"] == "NOT GATED"
    assert verdict["gate"] == "throttling"
    assert verdict["outcome"] == "PASS"
    assert verdict["figure"] == "1 of 4 set aside"


def test_a_benchmark_that_was_throttled_most_of_the_time_is_not_green(suite: Suite) -> None:
    suite.write("test_steps.py", HEAD + HELD.format("0, 8, 0, 8, 0, 8, 0, 0"))
    result = suite.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*INCONCLUSIVE throttling: 3 of 4 set aside*slowdown*"])


def test_a_duet_ends_when_its_verdict_is_clear_and_that_is_no_change_of_config(
    suite: Suite,
) -> None:
    suite.write("test_steps.py", HEAD + IN_TURNS.format(1.1, "0"))
    (entry,) = load(suite.record())["benchmarks"]
    record = entry["extra_info"]["perfsuite"]
    assert record["metrics"]["pairs"]["value"] == 12
    assert record["raw"]["duet"]["order"] == "ABBABAAB" * 6
    assert record["raw"]["duet"]["arms"] == ["an arm", "an arm"]
    assert "quads" not in record["config"]


def test_a_duet_that_stays_unclear_ends_with_its_budget(suite: Suite) -> None:
    # The arms are equal to the last digit, so the noise that keeps it unclear is made up.
    text = HEAD + IN_TURNS.format("1.0", "0").replace("at_most(", "unclear(")
    text += """

def unclear(gate, estimate, maximum):
    from dataclasses import replace
    return at_most(gate, replace(estimate, low=0.9, high=1.1), maximum)
"""
    suite.write("test_steps.py", text)
    result = suite.run("--perf-budget=1e-9", "--benchmark-json=run.json")
    result.assert_outcomes(failed=1)
    (entry,) = load(suite.folder / "run.json")["benchmarks"]
    assert entry["extra_info"]["perfsuite"]["metrics"]["pairs"]["value"] == 12


def test_a_duet_counts_the_groups_that_it_set_aside_and_not_their_blocks(suite: Suite) -> None:
    # Each group of four blocks is read eight times, and held back in one of its blocks.
    suite.write("test_steps.py", HEAD + IN_TURNS.format(1.1, "8, 0, 0, 0, 0, 0, 0, 0"))
    result = suite.run("--perf-budget=1e-9")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*INCONCLUSIVE throttling: 12 of 12 set aside*",
            "*INCONCLUSIVE peak_ratio: unknown*12 of 12 groups were throttled and set aside*",
        ]
    )


def test_throttling_does_not_hide_a_figure_that_nothing_is_asked_of(suite: Suite) -> None:
    suite.write("test_steps.py", HEAD + HELD.format("0, 0x80, 0, 0, 0, 0, 0, 0"))
    result = suite.run()
    result.stdout.fnmatch_lines(["*NOT GATED*step_s*0.01 s*"])
