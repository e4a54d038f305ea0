"""What is read of raw figures: of a GPU's runs, of two trees, and of what has another shape."""

from pathlib import Path
from typing import Any

import pytest
from reports import content, published, record

FP32 = "test_step_time[fp32]"
SPEEDUP = "test_amp_speedup[bf16-vs-fp32]"
BLOCK = {"steps": 10, "wall_s": 0.002, "device_s": 0.001, "throttled": []}
THROTTLED = BLOCK | {"device_s": 0.004, "throttled": ["power brake"]}


def test_a_group_of_turns_is_set_aside_as_a_whole(tmp_path: Path) -> None:
    document = published(SPEEDUP)
    duet = {"order": "ABBABAAB" * 2, "arms": ["fp32", "fp16"], "blocks": [BLOCK] * 15 + [THROTTLED]}
    record(document, SPEEDUP)["raw"]["duet"] = duet
    chart = content(tmp_path, document).charts("Step times")["Median by arm"]
    name = "amp_speedup[bf16-vs-fp32]"
    assert [chart.row(f"{name}: {arm}")[3:] for arm in ("fp32", "fp16")] == [[6, 2], [6, 2]]


def test_where_most_was_throttled_it_is_shown_all_the_same(tmp_path: Path) -> None:
    document = published(FP32)
    record(document, FP32)["raw"]["blocks"] = [*[BLOCK] * 3, *[THROTTLED] * 5]
    row = content(tmp_path, document).charts("Step times")["Median by arm"].row("step_time[fp32]")
    assert (row[0], row[3], row[4]) == (0.004, 8, 0)


def two_trees() -> dict[str, Any]:
    """Return a run that compared two trees in three pairs of processes."""
    document = published()
    document["perfsuite"]["against"] = {
        "ref": "main",
        "commit": "a" * 40,
        "software": {"torch": "1"},
    }
    of_fp32 = record(document, FP32)
    profile = of_fp32["operators"]
    slower = BLOCK | {"device_s": 0.003}
    turns = {"order": "ABBA", "blocks": [BLOCK, slower, slower, BLOCK]}
    of_fp32["operators"] = None
    of_fp32["against"] = {
        "restarts": [{"started": "AB", "turns": {"step_s": turns}}] * 3,
        "profiles": {"before": profile, "after": profile | {"outside_s": 1.0}},
    }
    return document


def test_two_trees_are_shown_side_by_side(tmp_path: Path) -> None:
    found = content(tmp_path, two_trees())
    chart = found.charts("Step times")["Median by arm"]
    assert chart.row("step_time[fp32]: before")[0] == 0.001
    assert chart.row("step_time[fp32]: after")[0] == 0.003
    assert chart.row("step_time[fp32]: after")[3] == 3  # a process is one observation
    chart = found.charts("Blocks over time")["step_time[fp32]"]
    assert chart.row("after") == [6, 0.003, 0.003, 0.003, 0]
    assert "3 pairs of processes" in chart.drawn().label
    chart = found.charts("Operators")["step_time[fp32]: operators"]
    before = record(published(), FP32)["operators"]["outside_s"]
    assert chart.row("outside of operators")[:2] == [before, 1.0]
    assert found.page.environment.note == "before: main"
    (torch,) = [row for row in found.page.environment.differences if row.name == "torch"]
    assert torch.before == "1"


def test_nothing_of_the_past_is_shown_beside_two_trees(tmp_path: Path) -> None:
    found = content(tmp_path, published(), published(), two_trees())
    assert found.charts("History") == {}
    assert "run0.json" not in found.page.environment.note


def test_a_comparison_among_earlier_runs_is_no_before(tmp_path: Path) -> None:
    found = content(tmp_path, published(), two_trees(), published())
    assert "run0.json" in found.page.environment.note
    chart = found.charts("Operators")["step_time[fp32]: operators"]
    assert {"before", "now"} <= set(chart.drawn().texts)


KEPT: list[object] = [
    None,
    3,
    "text",
    [],
    {},
    [1, 2],
    {"order": "AB", "blocks": [1]},
    [{}],
    0.5,
    True,
]


@pytest.mark.parametrize("name", ["blocks", "duet", "pairs", "peaks", "precisions"])
def test_what_a_suite_kept_under_our_names_is_no_error(tmp_path: Path, name: str) -> None:
    document = published()
    for benchmark, kept in zip(document["benchmarks"], KEPT, strict=True):
        benchmark["extra_info"]["perfsuite"]["raw"] = {name: kept, "activation_bytes_per_image": 1}
    page = content(tmp_path, document).page
    assert [section.title for section in page.sections] == ["Operators"]


def test_turns_that_do_not_belong_together_are_not_shown(tmp_path: Path) -> None:
    document = published(SPEEDUP)
    duet = record(document, SPEEDUP)["raw"]["duet"]
    duet["order"] = duet["order"][:-1]
    shown = content(tmp_path, document).charts("Blocks over time")
    assert "amp_speedup[bf16-vs-fp32]" not in shown


@pytest.mark.parametrize("wall_s", [0.0, -1.0])
def test_a_block_that_took_no_time_is_not_shown(tmp_path: Path, wall_s: float) -> None:
    document = published()
    timeless: dict[str, Any] = {"steps": 1, "wall_s": wall_s, "device_s": None, "throttled": []}
    record(document, FP32)["raw"]["blocks"] = [timeless] * 9
    record(document, SPEEDUP)["raw"]["duet"]["blocks"][0] = timeless
    shown = content(tmp_path, document).charts("Blocks over time")
    assert not {"step_time[fp32]", "amp_speedup[bf16-vs-fp32]"} & shown.keys()


def test_a_restart_that_timed_less_is_not_shown(tmp_path: Path) -> None:
    document = two_trees()
    restarts = record(document, FP32)["against"]["restarts"]
    restarts[1] = {"started": "AB", "turns": {}}
    assert "step_time[fp32]" not in content(tmp_path, document).charts("Blocks over time")


def test_processes_that_were_mostly_throttled_are_left_out_as_the_verdict_does(
    tmp_path: Path,
) -> None:
    document = two_trees()
    ours = record(document, FP32)
    held = {"started": "AB", "turns": {"step_s": {"order": "ABBA", "blocks": [THROTTLED] * 4}}}
    ours["against"]["restarts"] += [held] * 2
    row = content(tmp_path, document).charts("Step times")["Median by arm"]
    assert row.row("step_time[fp32]: before") == [0.001, "unknown", "unknown", 3, 4]
