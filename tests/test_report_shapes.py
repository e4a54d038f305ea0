"""What a report shows of a GPU's runs, of two trees, and of figures that it does not know."""

from pathlib import Path
from statistics import median
from typing import Any

import pytest
from reports import published, record, report

BLOCK = {"steps": 10, "wall_s": 0.002, "device_s": 0.001, "throttled": []}
THROTTLED = BLOCK | {"device_s": 0.004, "throttled": ["power brake"]}


def test_throttled_blocks_are_crossed_and_set_aside(tmp_path: Path) -> None:
    document = published()
    record(document, "test_step_time[fp32]")["raw"]["blocks"] = [*[BLOCK] * 9, THROTTLED]
    found = report(tmp_path, document)
    figure = found.figures("Blocks over time")["step_time[fp32]"]
    assert figure.row("fp32") == [10, 0.001, 0.001, 0.004, 1]
    assert "throttled" in figure.texts
    row = found.figures("Step times")["Median by arm"].row("step_time[fp32]")
    assert (row[0], row[3], row[4]) == (0.001, 9, 1)


def test_a_group_of_turns_is_set_aside_as_a_whole(tmp_path: Path) -> None:
    document = published()
    duet = {"order": "ABBABAAB" * 2, "arms": ["fp32", "fp16"], "blocks": [BLOCK] * 15 + [THROTTLED]}
    record(document, "test_amp_speedup[bf16-vs-fp32]")["raw"]["duet"] = duet
    figure = report(tmp_path, document).figures("Step times")["Median by arm"]
    name = "amp_speedup[bf16-vs-fp32]"
    assert [figure.row(f"{name}: {arm}")[3:] for arm in ("fp32", "fp16")] == [[6, 2], [6, 2]]


def test_where_most_was_throttled_it_is_shown_all_the_same(tmp_path: Path) -> None:
    document = published()
    record(document, "test_step_time[fp32]")["raw"]["blocks"] = [*[BLOCK] * 3, *[THROTTLED] * 5]
    row = report(tmp_path, document).figures("Step times")["Median by arm"].row("step_time[fp32]")
    assert (row[0], row[3], row[4]) == (0.004, 8, 0)


def test_the_scale_and_the_steps_that_were_skipped(tmp_path: Path) -> None:
    document = published()
    pairs = record(document, "test_amp_convergence[bf16]")["raw"]["pairs"]
    steps = len(pairs[0]["candidate"]["losses"])
    for pair in pairs:
        pair["candidate"]["scales"] = [65536.0] * (steps + 1)
    pairs[1]["candidate"]["scales"][3:] = [32768.0] * (steps - 2)
    figure = report(tmp_path, document).figures("Training")["amp_convergence[bf16]: loss scale"]
    assert figure.row(0.0) == [65536, 65536, "none"]  # type: ignore[arg-type]  # a number
    assert figure.row(1.0) == [65536, 32768, "3"]  # type: ignore[arg-type]  # a number
    assert "skipped step" in figure.texts


def test_a_loss_that_is_not_finite_ends_its_curve(tmp_path: Path) -> None:
    document = published()
    pairs = record(document, "test_amp_convergence[bf16]")["raw"]["pairs"]
    pairs[0]["candidate"]["losses"][5] = None
    figure = report(tmp_path, document).figures("Training")["amp_convergence[bf16]"]
    assert [row[0] for row in figure.rows if row] == [1, 2, 3, 4, 5]


def test_the_peak_on_a_gpu(tmp_path: Path) -> None:
    document = published()
    peaks = {
        name: {"allocated_bytes": size, "reserved_bytes": 2 * size, "grew": False}
        for name, size in (("fp32", 3_000_000), ("fp16", 2_000_000))
    }
    record(document, "test_amp_memory[bf16]")["raw"]["peaks"] = peaks
    figure = report(tmp_path, document).figures("Memory")["amp_memory[bf16]: peak on the GPU"]
    assert figure.row("fp16") == [2_000_000, 4_000_000]
    assert {"allocated", "reserved", "MiB"} <= set(figure.texts)


def two_trees() -> dict[str, Any]:
    """Return a run that compared two trees in three pairs of processes."""
    document = published()
    document["perfsuite"]["against"] = {
        "ref": "main",
        "commit": "a" * 40,
        "software": {"torch": "1"},
    }
    of_fp32 = record(document, "test_step_time[fp32]")
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
    found = report(tmp_path, two_trees())
    figure = found.figures("Step times")["Median by arm"]
    assert figure.row("step_time[fp32]: before")[0] == 0.001
    assert figure.row("step_time[fp32]: after")[0] == 0.003
    assert figure.row("step_time[fp32]: after")[3] == 3  # a process is one observation
    figure = found.figures("Blocks over time")["step_time[fp32]"]
    assert figure.row("after") == [6, 0.003, 0.003, 0.003, 0]
    assert "3 pairs of processes" in figure.label
    figure = found.figures("Operators")["step_time[fp32]: operators"]
    before = record(published(), "test_step_time[fp32]")["operators"]["outside_s"]
    assert figure.row("outside of operators")[:2] == [before, 1.0]
    assert "before: main" in found.page.text
    assert "| torch | 1 |" in found.markdown


def test_nothing_of_the_past_is_shown_beside_two_trees(tmp_path: Path) -> None:
    found = report(tmp_path, published(), published(), two_trees())
    assert found.figures("History") == {}


def test_a_comparison_among_earlier_runs_is_no_before(tmp_path: Path) -> None:
    found = report(tmp_path, published(), two_trees(), published())
    assert "run0.json" in found.page.text
    assert {"before", "now"} <= set(found.figures("Operators")["step_time[fp32]: operators"].texts)


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
    found = report(tmp_path, document)
    assert {figure.section for figure in found.page.figures} == {"Operators"}


def test_turns_that_do_not_belong_together_are_not_shown(tmp_path: Path) -> None:
    document = published()
    duet = record(document, "test_amp_speedup[bf16-vs-fp32]")["raw"]["duet"]
    duet["order"] = duet["order"][:-1]
    shown = report(tmp_path, document).figures("Blocks over time")
    assert "amp_speedup[bf16-vs-fp32]" not in shown


def test_names_are_shown_as_they_are(tmp_path: Path) -> None:
    document = published()
    name = 'test_a[<script>alert("$x$ 数 \\|`@me`")</script>]'
    ours = record(document, "test_step_time[fp32]")
    key = f"test_step_time.py::{name}"
    document["perfsuite"]["items"][key] = document["perfsuite"]["items"].pop(ours["key"])
    ours["key"] = key
    found = report(tmp_path, document)
    shown = name.removeprefix("test_")
    assert shown in found.figures("Blocks over time")
    assert found.figures("Blocks over time")[shown].label.startswith(shown)
    assert "<script" not in found.html
    assert "@me" not in found.markdown
    assert "<script" not in found.markdown


def test_few_values_carry_no_interval(tmp_path: Path) -> None:
    document = published()
    record(document, "test_step_time[fp32]")["raw"]["blocks"] = [BLOCK] * 3
    row = report(tmp_path, document).figures("Step times")["Median by arm"].row("step_time[fp32]")
    assert row == [median([0.001]), "unknown", "unknown", 3, 0]
