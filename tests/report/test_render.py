"""The report: its numbers are those of the run's JSON, its pictures are named, nothing is lost."""

import random
import re
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, median
from typing import Any

import pytest
from reports import Read, published, record, report, written
from scipy.stats import quantile_test

from perfsuite.__main__ import main

Document = dict[str, Any]
UNITS = {
    "ms a step",
    "seconds of timing",
    "loss (cross-entropy, nats)",
    "training step",
    "loss scale (factor)",
    "MiB an image",
    "MiB",
    "run, the oldest first",
    "s",
    "B",
    "x",
}


def step_s(block: dict[str, Any]) -> float:
    return float(block["wall_s"] if block["device_s"] is None else block["device_s"])


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Read:
    """Of three runs, the last one slower by a half."""
    documents = [published(), published(), published()]
    for benchmark in documents[2]["benchmarks"]:
        for metric in benchmark["extra_info"]["perfsuite"]["metrics"].values():
            metric["value"] *= 1.5
    return report(tmp_path_factory.mktemp("plain"), *documents)


def test_step_times_are_those_of_the_run(plain: Read) -> None:
    figure = plain.figures("Step times")["Median by arm"]
    blocks_s = [step_s(b) for b in record(published(), "test_step_time[fp32]")["raw"]["blocks"]]
    low, high = quantile_test(blocks_s, p=0.5).confidence_interval(0.99)
    row = figure.row("step_time[fp32]")
    assert row == pytest.approx([median(blocks_s), low, high, len(blocks_s), 0])
    duet = record(published(), "test_amp_speedup[bf16-vs-fp32]")["raw"]["duet"]
    turns = zip(duet["order"], duet["blocks"], strict=True)
    bf16_s = [step_s(block) for letter, block in turns if letter == "B"]
    assert figure.row("amp_speedup[bf16-vs-fp32]: bf16")[0] == median(bf16_s)


def test_blocks_are_those_of_the_run(plain: Read) -> None:
    duet = record(published(), "test_amp_speedup[bf16-vs-fp32]")["raw"]["duet"]
    figure = plain.figures("Blocks over time")["amp_speedup[bf16-vs-fp32]"]
    for letter, arm in zip("AB", ("fp32", "bf16"), strict=True):
        turns = zip(duet["order"], duet["blocks"], strict=True)
        times_s = [step_s(block) for name, block in turns if name == letter]
        found = [len(times_s), min(times_s), median(times_s), max(times_s), 0]
        assert figure.row(arm) == found


def test_losses_are_those_of_the_run(plain: Read) -> None:
    pairs = record(published(), "test_amp_convergence[bf16]")["raw"]["pairs"]
    figure = plain.figures("Training")["amp_convergence[bf16]"]
    rows = [row for row in figure.rows if row]
    assert rows[0][0] == 1
    assert rows[-1][0] == len(pairs[0]["reference"]["losses"])
    for step, *figures in rows:
        for side, at in (("reference", 0), ("candidate", 3)):
            losses = [pair[side]["losses"][int(step) - 1] for pair in pairs]
            expected = [fmean(losses), min(losses), max(losses)]
            assert figures[at : at + 3] == pytest.approx(expected)
    assert {"fp32", "bf16"} <= set(figure.texts)


def test_memory_is_that_of_the_run(plain: Read) -> None:
    kept = record(published(), "test_amp_memory[bf16]")["raw"]["activation_bytes_per_image"]
    figure = plain.figures("Memory")["amp_memory[bf16]: activations"]
    assert {name: figure.row(name)[0] for name in kept} == kept


def test_operators_are_those_of_both_runs(tmp_path: Path) -> None:
    now = published()
    profile = record(now, "test_step_time[fp32]")["operators"]
    name, before = next(iter(profile["operators"].items()))
    profile["operators"][name] = {"self_s": 3 * before["self_s"], "calls": 7.0}
    figure = report(tmp_path, published(), now).figures("Operators")["step_time[fp32]: operators"]
    expected = [before["self_s"], 3 * before["self_s"], before["calls"], 7.0]
    assert figure.row(name) == pytest.approx(expected)
    assert figure.row("all other operators")[0] == profile["rest_s"]
    assert figure.row("outside of operators")[0] == profile["outside_s"]
    assert {"before", "now"} <= set(figure.texts)


def test_the_history_holds_the_metrics_of_the_runs(plain: Read) -> None:
    value = record(published(), "test_step_time[fp32]")["metrics"]["step_s"]["value"]
    figure = plain.figures("History")["step_time[fp32] step_s"]
    assert median([value, value, 1.5 * value]) == figure.row(1.0)[0]  # type: ignore[arg-type]  # a number


def test_a_change_for_good_is_shown_first(tmp_path: Path) -> None:
    documents = [published() for _ in range(10)]
    noise = random.Random(1)
    for number, document in enumerate(documents):
        for benchmark in document["benchmarks"]:
            for name, metric in benchmark["extra_info"]["perfsuite"]["metrics"].items():
                slow = number >= 5 and name == "epoch_s"
                metric["value"] *= (1.2 if slow else 1.0) * noise.uniform(0.997, 1.003)
    found = report(tmp_path, *documents)
    first = next(each for each in found.page.figures if each.section == "History")
    assert first.title.endswith("epoch_s")
    assert any(text.endswith("worse") for text in first.texts)
    assert "worse" in str(first.rows[-1])
    assert "### History" in found.markdown
    assert re.search(r"\+2\d\.\d%, worse, from run 6 on", found.markdown)


def test_every_number_is_shown_as_it_is(plain: Read) -> None:
    scales = {"ms": 1e-3, "s": 1.0, "B": 1.0, "x": 1.0, "": 1.0}
    numbers = [pair for figure in plain.page.figures for pair in figure.shown]
    assert len(numbers) > 200
    for text, value in numbers:
        digits, _, unit = text.replace(",", "").partition(" ")
        assert float(digits) * scales[unit] == pytest.approx(
            value, rel=1e-3, abs=0.5 * (unit == "B")
        )


def test_every_verdict_stands_as_in_the_run(plain: Read) -> None:
    expected = [
        (verdict["word"] or verdict["outcome"], verdict["figure"], verdict["threshold"])
        for benchmark in published()["benchmarks"]
        for verdict in benchmark["extra_info"]["perfsuite"]["verdicts"]
    ]
    rows = [row for row in plain.page.verdicts if row]
    assert sorted((word, figure, asked.strip()) for word, _, figure, asked in rows) == sorted(
        expected
    )


def test_every_picture_has_a_text_and_units(plain: Read) -> None:
    sections = {figure.section for figure in plain.page.figures}
    assert sections == {
        *("Step times", "Blocks over time", "Training", "Memory", "Operators", "History")
    }
    for figure in plain.page.figures:
        assert figure.title in figure.label
        assert figure.title.strip()
        assert UNITS & set(figure.texts), figure.title
        assert not any("$" in text for text in figure.texts)  # mathematics that nobody set
        assert [row for row in figure.rows if row]


def test_the_page_needs_nothing_else(plain: Read) -> None:
    assert len(plain.page.ids) == len(set(plain.page.ids))
    outside = [link for link in plain.page.references if not link.startswith(("#", "data:,"))]
    assert outside == []
    assert "<script" not in plain.html
    assert "default-src 'none'" in plain.html
    assert not re.search(r"url\((?!#)|@import", plain.html)


def test_the_same_runs_give_the_same_page(tmp_path: Path, plain: Read) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    first, second = (report(tmp_path / name, published(), published()) for name in ("a", "b"))
    assert first.html == second.html


def changed(change: Callable[[Document], object]) -> Document:
    document = published()
    change(document)
    return document


def test_what_failed_is_first_with_its_reasons(tmp_path: Path) -> None:
    document = published()
    of_bf16 = record(document, "test_step_time[bf16]")
    document["perfsuite"]["items"][of_bf16["key"]] = "failed"
    slow = {"gate": "compare step_s", "outcome": "FAIL", "figure": "1.5x", "threshold": "at most"}
    of_bf16["verdicts"].append(slow)
    of_bf16["reasons"] = ["profiled: 1 ms -> 2 ms a step", "aten::mm | <b>: 1 ms -> 2 ms"]
    found = report(tmp_path, document)
    assert found.page.text.count("Red: 1 of 10 benchmarks failed") == 2  # title and heading
    first = next(row for row in found.page.verdicts if row)
    assert first[:3] == ["FAIL", "step_time[bf16] compare step_s", "1.5x"]
    assert "aten::mm | <b>: 1 ms -> 2 ms" in first[3]
    assert r"aten::mm \| &lt;b>: 1 ms -> 2 ms" in found.markdown
    assert "## Red: 1 of 10 benchmarks failed" in found.markdown
    assert "| 🔴 FAIL | step\\_time\\[bf16\\] compare step\\_s | 1.5x |" in found.markdown


@pytest.mark.parametrize(
    ("change", "headline", "row"),
    [
        (
            lambda ours: ours["items"].update({"test_new.py::test_crashed": "error"}),
            "Red: 1 of 11 benchmarks failed",
            ["ERROR", "crashed", "no verdict"],
        ),
        (
            lambda ours: (
                ours["items"].update({"test_new.py::test_b": "not run"})
                or ours.update(complete=False)
            ),
            "Red: it did not run to its end",
            ["NOT RUN", "b", "no verdict"],
        ),
        (
            lambda ours: ours.update(unevaluated=["not compared, and so not green: a skipped"]),
            "Red: not everything was evaluated",
            None,
        ),
    ],
    ids=["crashed", "interrupted", "unevaluated"],
)
def test_what_has_no_verdict_is_not_green(
    tmp_path: Path, change: Callable[[Document], object], headline: str, row: list[str] | None
) -> None:
    found = report(tmp_path, changed(lambda document: change(document["perfsuite"])))
    assert headline in found.page.text
    assert f"## {headline}" in found.markdown
    if row is not None:
        assert next(each for each in found.page.verdicts if each)[:3] == row
    else:
        assert "not compared, and so not green: a skipped" in found.page.text
        assert "- not compared, and so not green: a skipped" in found.markdown


def test_software_that_changed_is_told_first(tmp_path: Path) -> None:
    now = changed(lambda document: document["perfsuite"]["software"].update(torch="99.0"))
    found = report(tmp_path, published(), now)
    was = published()["perfsuite"]["software"]["torch"]
    assert f"| torch | {was} | 99.0 |" in found.markdown
    assert re.search(rf"torch \(changed\)</td><td>{re.escape(was)}</td><td>99.0<", found.html)


def cut_short(run: Path, _: Path) -> None:
    run.write_text(run.read_text(encoding="utf-8")[:1000], encoding="utf-8")


def foreign(run: Path, _: Path) -> None:
    run.write_text("{}", encoding="utf-8")


def gone(run: Path, _: Path) -> None:
    run.unlink()


def of_other_hardware(run: Path, _: Path) -> None:
    text = run.read_text(encoding="utf-8")
    run.write_text(text.replace('"key": "cpu-', '"key": "other-'), encoding="utf-8")


def taken(_: Path, out: Path) -> None:
    out.mkdir()
    (out / "report.md").write_text("mine", encoding="utf-8")


def a_file(_: Path, out: Path) -> None:
    out.write_text("mine", encoding="utf-8")


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (cut_short, "not valid JSON"),
        (foreign, "no run of perfsuite"),
        (gone, "cannot be read"),
        (of_other_hardware, "was measured on"),
        (taken, "exists and is not overwritten"),
        (a_file, "File exists"),
    ],
    ids=lambda each: getattr(each, "__name__", None),
)
def test_what_cannot_be_reported_is_one_line_and_leaves_nothing(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    break_it: Callable[[Path, Path], None],
    message: str,
) -> None:
    runs, out = written(tmp_path, published(), published()), tmp_path / "out"
    break_it(runs[0], out)
    before = sorted(tmp_path.rglob("*"))
    assert main(["report", *map(str, runs), "-o", str(out)]) == 1
    said = capsys.readouterr().err
    assert said.startswith("perfsuite: ")
    assert said.count("\n") == 1
    assert message in said
    assert sorted(tmp_path.rglob("*")) == before
