"""Charts of speed show the figures of the run's JSON."""

import random
import re
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from reports import content, published, record
from scipy.stats import quantile_test

FP32 = "test_step_time[fp32]"
SPEEDUP = "test_amp_speedup[bf16-vs-fp32]"
BLOCK = {"steps": 10, "wall_s": 0.002, "device_s": 0.001, "throttled": []}
THROTTLED = BLOCK | {"device_s": 0.004, "throttled": ["power brake"]}


def step_s(block: dict[str, Any]) -> float:
    return float(block["wall_s"] if block["device_s"] is None else block["device_s"])


def test_step_times_are_those_of_the_run(tmp_path: Path) -> None:
    document = published(FP32, SPEEDUP)
    chart = content(tmp_path, document).charts("Step times")["Median by arm"]
    blocks_s = [step_s(b) for b in record(document, FP32)["raw"]["blocks"]]
    low, high = quantile_test(blocks_s, p=0.5).confidence_interval(0.99)
    row = chart.row("step_time[fp32]")
    assert row == pytest.approx([median(blocks_s), low, high, len(blocks_s), 0])
    duet = record(document, SPEEDUP)["raw"]["duet"]
    turns = zip(duet["order"], duet["blocks"], strict=True)
    bf16_s = [step_s(block) for letter, block in turns if letter == "B"]
    assert chart.row("amp_speedup[bf16-vs-fp32]: bf16")[0] == median(bf16_s)


def load(label: str, **figures: float | None) -> dict[str, Any]:
    return {"label": label, "host_s": 0.004, "device_s": 0.004, "kernel_s": 0.002} | figures


def test_host_and_device_are_a_bar_each_for_every_precision(tmp_path: Path) -> None:
    document = published(FP32, SPEEDUP)
    record(document, FP32)["raw"]["loads"] = {"fp32": load("fp32", host_s=0.001, kernel_s=0.0039)}
    both = {"bf16": load("bf16", launches=300), "fp32": load("fp32", kernel_s=None)}
    record(document, SPEEDUP)["raw"]["loads"] = both
    chart = content(tmp_path, document).charts("Step times")["Host and device"]
    fp32 = [0.001, 0.004, 0.0039, "unknown", "3%", "no"]
    assert chart.row("step_time[fp32]: fp32") == pytest.approx(fp32)
    bf16 = [0.004, 0.004, 0.002, 300, "50%", "yes"]
    assert chart.row("amp_speedup[bf16-vs-fp32]: bf16") == pytest.approx(bf16)
    unknown = [0.004, 0.004, *["unknown"] * 4]
    assert chart.row("amp_speedup[bf16-vs-fp32]: fp32") == pytest.approx(unknown)
    assert {"host", "device"} <= set(chart.drawn().texts)


@pytest.mark.parametrize("raw", [None, [1], {"fp32": {}}, {"fp32": load("fp32", device_s=0.0)}])
def test_a_run_that_does_not_tell_has_no_such_chart(tmp_path: Path, raw: Any) -> None:
    document = published(FP32)
    assert "loads" not in record(document, FP32)["raw"]
    record(document, FP32)["raw"]["loads"] = raw
    assert "Host and device" not in content(tmp_path, document).charts("Step times")


def test_few_values_carry_no_interval(tmp_path: Path) -> None:
    document = published(FP32)
    record(document, FP32)["raw"]["blocks"] = [BLOCK] * 3
    row = content(tmp_path, document).charts("Step times")["Median by arm"].row("step_time[fp32]")
    assert row == [0.001, "unknown", "unknown", 3, 0]


def test_blocks_are_those_of_the_run(tmp_path: Path) -> None:
    document = published(SPEEDUP)
    duet = record(document, SPEEDUP)["raw"]["duet"]
    chart = content(tmp_path, document).charts("Blocks over time")["amp_speedup[bf16-vs-fp32]"]
    for letter, arm in zip("AB", ("fp32", "bf16"), strict=True):
        turns = zip(duet["order"], duet["blocks"], strict=True)
        times_s = [step_s(block) for name, block in turns if name == letter]
        found = [len(times_s), min(times_s), median(times_s), max(times_s), 0]
        assert chart.row(arm) == found


def test_throttled_blocks_are_crossed_and_set_aside(tmp_path: Path) -> None:
    document = published(FP32)
    record(document, FP32)["raw"]["blocks"] = [*[BLOCK] * 9, THROTTLED]
    found = content(tmp_path, document)
    chart = found.charts("Blocks over time")["step_time[fp32]"]
    assert chart.row("fp32") == [10, 0.001, 0.001, 0.004, 1]
    assert "throttled" in chart.drawn().texts
    row = found.charts("Step times")["Median by arm"].row("step_time[fp32]")
    assert (row[0], row[3], row[4]) == (0.001, 9, 1)


def test_operators_are_those_of_both_runs(tmp_path: Path) -> None:
    now = published(FP32)
    profile = record(now, FP32)["operators"]
    name, before = next(iter(profile["operators"].items()))
    profile["operators"][name] = {"self_s": 3 * before["self_s"], "calls": 7.0}
    found = content(tmp_path, published(FP32), now)
    chart = found.charts("Operators")["step_time[fp32]: operators"]
    expected = [before["self_s"], 3 * before["self_s"], before["calls"], 7.0]
    assert chart.row(name) == pytest.approx(expected)
    assert chart.row("all other operators")[0] == profile["rest_s"]
    assert chart.row("outside of operators")[0] == profile["outside_s"]
    assert {"before", "now"} <= set(chart.drawn().texts)


def test_operators_timed_by_different_clocks_are_not_compared(tmp_path: Path) -> None:
    now = published(FP32)
    record(now, FP32)["operators"]["clock"] = "device"
    chart = content(tmp_path, published(FP32), now).charts("Operators")[
        "step_time[fp32]: operators"
    ]
    assert chart.chart.head == ("operator", "now time", "now calls")
    assert "Time of the GPU" in chart.chart.caption


def test_the_history_holds_the_metrics_of_the_runs(tmp_path: Path) -> None:
    documents = [published(FP32) for _ in range(3)]
    value = record(documents[0], FP32)["metrics"]["step_s"]["value"]
    record(documents[2], FP32)["metrics"]["step_s"]["value"] *= 1.5
    chart = content(tmp_path, *documents).charts("History")["step_time[fp32] step_s"]
    assert chart.row(1.0)[0] == median([value, value, 1.5 * value])


def test_a_lasting_change_is_shown_first(tmp_path: Path) -> None:
    documents = [published() for _ in range(10)]
    noise = random.Random(1)
    for number, document in enumerate(documents):
        for benchmark in document["benchmarks"]:
            for name, metric in benchmark["extra_info"]["perfsuite"]["metrics"].items():
                slow = number >= 5 and name == "epoch_s"
                metric["value"] *= (1.2 if slow else 1.0) * noise.uniform(0.997, 1.003)
    found = content(tmp_path, *documents)
    title, chart = next(iter(found.charts("History").items()))
    assert title.endswith("epoch_s")
    assert any(text.endswith("worse") for text in chart.drawn().texts)
    assert "worse" in str(chart.rows[-1])
    assert any(re.search(r"\+2\d\.\d%, worse, from run 6 on", line) for line in found.page.changes)
