"""What a report shows of a GPU's runs, of two trees, and of figures that it does not know."""

from pathlib import Path
from statistics import median
from typing import Any

import pytest
from reports import published, read, record, report, written

from perfsuite.__main__ import main

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
    pairs[1]["candidate"]["skipped_steps"] = 1
    pairs[1]["candidate"]["scales"][3:] = [32768.0] * (steps - 2)
    figure = report(tmp_path, document).figures("Training")["amp_convergence[bf16]: loss scale"]
    assert figure.row(0.0) == [65536, 65536, 0, "none"]  # type: ignore[arg-type]  # a number
    assert figure.row(1.0) == [65536, 32768, 1, "3"]  # type: ignore[arg-type]  # a number
    assert {"skipped step", "32768", "65536"} <= set(figure.texts)


def test_a_loss_that_is_not_finite_ends_its_curve(tmp_path: Path) -> None:
    document = published()
    pairs = record(document, "test_amp_convergence[bf16]")["raw"]["pairs"]
    pairs[0]["candidate"]["losses"][5] = None
    figure = report(tmp_path, document).figures("Training")["amp_convergence[bf16]"]
    for step, *losses in (row for row in figure.rows if row):
        assert all(isinstance(loss, float) for loss in losses[:3])
        assert (losses[3:] == ["", "", ""]) is (float(step) > 5)
    assert len(figure.rows) > 6


def test_a_training_that_diverged_at_once_is_shown_beside_the_other(tmp_path: Path) -> None:
    document = published()
    for pair in record(document, "test_amp_convergence[bf16]")["raw"]["pairs"]:
        pair["candidate"]["losses"] = [None] * len(pair["candidate"]["losses"])
        pair["candidate"]["scales"] = [65536.0, None, 0.0]
        pair["candidate"]["skipped_steps"] = 2
    figures = report(tmp_path, document).figures("Training")
    assert "fp32" in figures["amp_convergence[bf16]"].texts
    row = figures["amp_convergence[bf16]: loss scale"].row(0.0)  # type: ignore[arg-type]  # a number
    assert row == [65536, 0, 2, "none"]


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


@pytest.mark.parametrize("wall_s", [0.0, -1.0])
def test_a_block_that_took_no_time_is_not_shown(tmp_path: Path, wall_s: float) -> None:
    document = published()
    timeless: dict[str, Any] = {"steps": 1, "wall_s": wall_s, "device_s": None, "throttled": []}
    record(document, "test_step_time[fp32]")["raw"]["blocks"] = [timeless] * 9
    record(document, "test_amp_speedup[bf16-vs-fp32]")["raw"]["duet"]["blocks"][0] = timeless
    shown = report(tmp_path, document).figures("Blocks over time")
    assert not {"step_time[fp32]", "amp_speedup[bf16-vs-fp32]"} & shown.keys()


def test_a_restart_that_timed_less_is_not_shown(tmp_path: Path) -> None:
    document = two_trees()
    restarts = record(document, "test_step_time[fp32]")["against"]["restarts"]
    restarts[1] = {"started": "AB", "turns": {}}
    assert "step_time[fp32]" not in report(tmp_path, document).figures("Blocks over time")


def test_processes_that_were_mostly_throttled_are_left_out_as_the_verdict_does(
    tmp_path: Path,
) -> None:
    document = two_trees()
    ours = record(document, "test_step_time[fp32]")
    held = {"started": "AB", "turns": {"step_s": {"order": "ABBA", "blocks": [THROTTLED] * 4}}}
    ours["against"]["restarts"] += [held] * 2
    row = report(tmp_path, document).figures("Step times")["Median by arm"]
    assert row.row("step_time[fp32]: before") == [0.001, "unknown", "unknown", 3, 4]


def test_a_run_without_figures_to_compare_has_a_report(tmp_path: Path) -> None:
    documents = [published(), published()]
    for document in documents:
        for benchmark in document["benchmarks"]:
            benchmark["extra_info"]["perfsuite"]["metrics"] = {}
    assert "Green" in report(tmp_path, *documents).page.text


def test_a_history_is_of_figures_that_the_run_has(tmp_path: Path) -> None:
    document = published()
    del record(document, "test_step_time[fp32]")["metrics"]["step_s"]
    found = report(tmp_path, *[published()] * 4, document)
    assert "step_time[bf16] step_s" in found.figures("History")
    assert "step_time[fp32] step_s" not in found.figures("History")


def test_a_run_that_is_there_twice_is_not_its_own_past(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run,) = written(tmp_path, published())
    copy = tmp_path / "copy.json"
    copy.write_bytes(run.read_bytes())
    assert main(["report", str(run), str(copy), "-o", str(tmp_path / "out")]) == 0
    assert "the same run as" in capsys.readouterr().err
    assert "before:" not in read(tmp_path / "out").page.text


def test_the_baseline_is_the_before_if_it_is_there(tmp_path: Path) -> None:
    document = published()
    document["perfsuite"]["baseline"] = ["2026-01-01T00:00:00+00:00", "2026-01-01T01:00:00+00:00"]
    found = report(tmp_path, *[published()] * 4, document)
    assert "before: the run of 2026-01-01 01:00, run1.json" in found.page.text
    (tmp_path / "other").mkdir()
    document["perfsuite"]["baseline"] = ["2025-01-01T00:00:00+00:00"]
    found = report(tmp_path / "other", *[published()] * 4, document)
    assert (
        "run3.json; it is not of the baseline, which verdicts are held against" in found.page.text
    )


def test_an_error_beside_an_unclear_verdict_has_its_line(tmp_path: Path) -> None:
    document = published()
    ours = record(document, "test_step_time[fp32]")
    ours["verdicts"][0]["outcome"] = "INCONCLUSIVE"
    document["perfsuite"]["items"][ours["key"]] = "error"
    words = [row[0] for row in report(tmp_path, document).page.verdicts if row]
    assert words[:2] == ["ERROR", "INCONCLUSIVE"]


@pytest.mark.parametrize("text", ["<img src=x>", "@someone", "[x](http://evil)", "&#64;a", "a|b"])
def test_nothing_in_a_run_is_markup_in_a_summary(tmp_path: Path, text: str) -> None:
    document = published()
    document["perfsuite"]["hardware"]["name"] = text
    document["perfsuite"]["unevaluated"] = [text]
    document["perfsuite"]["software"]["torch"] = text
    ours = record(document, "test_step_time[fp32]")
    ours["verdicts"][0] |= {"word": text, "figure": text, "threshold": text, "reason": text}
    ours["reasons"] = [text]
    assert text not in report(tmp_path, document).markdown
