"""What is said beside a figure that moved: operators, software, the machine, commits."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import pytest
from suites import Suite, load

from perfsuite.devices.device import Device
from perfsuite.judging.blocks import Block
from perfsuite.measuring.profiling import profile
from perfsuite.measuring.timing import Timeable
from perfsuite.records.causes import reasons, timed_blocks
from perfsuite.records.operators import Operator, Profile, profile_of
from perfsuite.records.schema import Benchmark

PROFILED = """
import os
from itertools import repeat

import torch

from perfsuite.devices.precision import Precision
from perfsuite.training.arm import Arm


def test_a(perf):
    ones = torch.ones(200, 200)
    products = int(os.environ.get("PRODUCTS", "2"))
    arm = Arm(
        precision=Precision.fp32,
        step=lambda batch: [torch.mm(ones, ones) for _ in range(products)],
        batches=repeat((ones, ones)),
        device=perf.device,
    )
    perf.timed([0.01 * products] * 5)
    perf.metric("step_s", 0.01 * products, unit="s", better="lower")
    perf.profile(arm)
"""


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Suite:
    return Suite(pytester, monkeypatch)


def profile_by_calls(arm: Timeable, device: Device) -> Profile:
    """Profile, and let each product take 10 ms and nothing else any time."""
    found = {
        name: Operator(self_s=0.01 * each.calls if name == "aten::mm" else 0.0, calls=each.calls)
        for name, each in profile(arm, device).operators.items()
    }
    return profile_of(found, step_s=0.0, clock="cpu")


def test_a_regression_against_the_baseline_names_operator_and_commits(
    suite: Suite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perfsuite.measuring.bench.profile", profile_by_calls)
    suite.write("test_steps.py", PROFILED)
    suite.commit()
    suite.write("test_steps.py", PROFILED + "# uncommitted, so that it cannot be measured again\n")
    suite.baseline()
    suite.git("commit", "--quiet", "--allow-empty", "--message=Make it slower")
    monkeypatch.setenv("PRODUCTS", "8")
    result = suite.compare("--benchmark-json=run.json")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.re_match_lines(
        [
            r"FAIL compare step_s: .*",
            r"  profiled: .* ms a step",
            r"  aten::mm: .* \(called 2 -> 8 times\), \d+% of the change",
            r"  1 commit between:",
            r"    [0-9a-f]{7,} Make it slower",
        ],
        consecutive=False,
    )
    (entry,) = load(suite.folder / "run.json")["benchmarks"]
    told = entry["extra_info"]["perfsuite"]["reasons"]
    assert told[0].startswith("profiled: ")
    assert told[-1].endswith("Make it slower")


def test_a_figure_that_did_not_move_needs_no_reasons(suite: Suite) -> None:
    suite.write("test_steps.py", PROFILED)
    suite.baseline()
    result = suite.compare()
    assert result.ret == 0
    result.stdout.no_re_match_line(".*profiled.*")


def benchmark(state: Mapping[str, Any], seconds: float | None = None) -> Benchmark:
    operators = None
    if seconds is not None:
        found = {"aten::mm": Operator(self_s=seconds, calls=1)}
        operators = profile_of(found, step_s=seconds, clock="cpu")
    return Benchmark(
        key="a", config={}, metrics={}, verdicts=[], operators=operators, state={"after": {**state}}
    )


def test_software_and_the_machine_are_told_where_they_differ() -> None:
    lines = reasons(
        benchmark({"sm_mhz": 1980, "temperature_c": 60, "power_w": None, "load_1min": 1.0}),
        benchmark({"sm_mhz": 1410, "temperature_c": 61, "power_w": 300.0, "load_1min": 1.0}),
        software=({"torch": "2.11", "cuda": "13"}, {"torch": "2.15", "cuda": "13"}),
        commits=[],
    )
    assert lines == ["software: torch 2.11 -> 2.15", "machine: GPU clock 1980 -> 1410 MHz"]


@pytest.mark.parametrize(
    ("then", "now", "told"), [(0.25, 0.5, "25% -> 50%"), (0.04, 0.12, ""), (0.12, 0.04, "")]
)
def test_a_share_of_the_cores_is_told_where_much_more_or_less_is_used(
    then: float, now: float, told: str
) -> None:
    sides = (benchmark({"others_cpu": share}) for share in (then, now))
    lines = reasons(*sides, software=({}, {}), commits=[])
    assert lines == [f"machine: share of the cores that others used {told}"] * bool(told)


def test_many_commits_are_counted_and_the_newest_named() -> None:
    lines = reasons(
        benchmark({}, 0.01),
        benchmark({}, 0.02),
        software=({}, {}),
        commits=[f"abc{n} Change {n}" for n in range(12)],
    )
    assert lines[2] == "12 commits between:"
    assert lines[3].strip() == "abc0 Change 0"
    assert lines[-1].strip() == "and 7 more"


def test_a_run_without_a_profile_is_explained_by_what_there_is() -> None:
    both = benchmark({}), benchmark({}, 0.01)
    assert reasons(*both, software=({}, {}), commits=[]) == []


def test_a_setting_of_nccl_that_changed_is_told() -> None:
    then, now = {"collectives": "nccl", "NCCL_ALGO": "Tree"}, {"collectives": "nccl"}
    lines = reasons(timed(0.01), timed(0.01), software=(then, now), commits=[])
    assert lines[-1] == "software: NCCL_ALGO Tree -> None"


def timed(step_s: float, *slow_s: float, arm: str = "") -> Benchmark:
    """Return a benchmark of ten blocks of ten steps, of which one holds stalls."""
    plain = asdict(Block(steps=10, wall_s=step_s, typical_s=step_s))
    lost_s = sum(slow_s) - len(slow_s) * step_s
    stalled = plain | {"wall_s": step_s + lost_s / 10, "slow_s": slow_s}
    blocks = [plain] * 9 + [stalled]
    operators = profile_of(
        {"aten::mm": Operator(self_s=step_s, calls=1)}, step_s=2 * step_s, clock="cpu"
    )
    raw: dict[str, Any] = {"blocks": blocks}
    if arm:
        other = asdict(Block(steps=10, wall_s=1.0, typical_s=1.0))
        both = [block for each in blocks for block in ((other, each)[:: 1 if arm == "B" else -1])]
        raw = {"duet": {"order": ("AB" if arm == "B" else "BA") * 10, "blocks": both}}
    return Benchmark(key="a", config={}, metrics={}, verdicts=[], operators=operators, raw=raw)


@pytest.mark.parametrize("arm", ["", "B", "BA"])
def test_a_change_that_is_one_of_stalls_names_no_operator(arm: str) -> None:
    before, after = timed(0.01, arm=arm), timed(0.0101, 0.1, 0.1, 0.1, arm=arm)
    lines = reasons(before, after, software=({}, {}), commits=[])
    told = "stalls: 3% of steps take 9.9 times as long (before: none); no operator is named"
    assert lines == [told]


def test_a_change_of_the_typical_step_names_its_operator_whatever_stalls() -> None:
    before, after = timed(0.01, 0.1), timed(0.02, 0.1)
    lines = reasons(before, after, software=({}, {}), commits=[])
    assert any("aten::mm" in line for line in lines)
    assert not any("stalls" in line for line in lines)


@pytest.mark.parametrize(
    "raw",
    [{}, {"blocks": 7}, {"blocks": [{"wall_s": 1.0}]}, {"duet": []}, {"duet": {"order": "A"}}],
)
def test_what_a_suite_keeps_under_the_same_name_is_no_block(raw: dict[str, Any]) -> None:
    kept = Benchmark(key="a", config={}, metrics={}, verdicts=[], raw=raw)
    assert timed_blocks(kept) == []
