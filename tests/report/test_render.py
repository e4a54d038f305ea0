"""The page: its numbers are those of the run's JSON, its pictures are named, nothing is lost."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from reports import ChartContent, ParsedReport, content, published, read, record, report, written

from perfsuite.__main__ import main

FP32 = "test_step_time[fp32]"
PROBES = "test_amp_probes[fp32]"
"""Without a chart, which takes time to draw."""
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


@pytest.fixture(scope="module")
def documents() -> list[dict[str, Any]]:
    """Return three runs, the last one slower by a half."""
    documents = [published(), published(), published()]
    for benchmark in documents[2]["benchmarks"]:
        for metric in benchmark["extra_info"]["perfsuite"]["metrics"].values():
            metric["value"] *= 1.5
    return documents


@pytest.fixture(scope="module")
def plain(
    tmp_path_factory: pytest.TempPathFactory, documents: list[dict[str, Any]]
) -> ParsedReport:
    return report(tmp_path_factory.mktemp("plain"), *documents)


def test_the_page_holds_all_of_the_content(
    tmp_path: Path, documents: list[dict[str, Any]], plain: ParsedReport
) -> None:
    """Other tests look at the content alone, of which nothing need be drawn."""
    page = content(tmp_path, *documents).page
    charts = [
        (section, ChartContent(chart)) for section in page.sections for chart in section.charts
    ]
    assert [(each.section, each.title) for each in plain.page.charts] == [
        (section.title, each.chart.title) for section, each in charts
    ]
    for shown, (_, each) in zip(plain.page.charts, charts, strict=True):
        assert [row for row in shown.rows if row] == each.rows
        assert each.chart.caption in shown.label
    for line in (page.headline, page.tally, page.what, page.environment.note):
        assert line in plain.page.text
    for row in page.environment.rows:
        assert row.name in plain.page.text
        assert row.now in plain.page.text


def test_every_number_is_shown_as_it_is(plain: ParsedReport) -> None:
    scales = {"ms": 1e-3, "s": 1.0, "B": 1.0, "x": 1.0, "": 1.0}
    numbers = [pair for figure in plain.page.charts for pair in figure.shown]
    assert len(numbers) > 200
    for text, value in numbers:
        digits, _, unit = text.replace(",", "").partition(" ")
        assert float(digits) * scales[unit] == pytest.approx(
            value, rel=1e-3, abs=0.5 * (unit == "B")
        )


def test_every_verdict_stands_as_in_the_run(plain: ParsedReport) -> None:
    expected = [
        (verdict["word"] or verdict["outcome"], verdict["figure"], verdict["threshold"])
        for benchmark in published()["benchmarks"]
        for verdict in benchmark["extra_info"]["perfsuite"]["verdicts"]
    ]
    rows = [row for row in plain.page.verdicts if row]
    assert sorted((word, figure, asked.strip()) for word, _, figure, asked in rows) == sorted(
        expected
    )


def test_every_picture_has_a_text_and_units(plain: ParsedReport) -> None:
    sections = {figure.section for figure in plain.page.charts}
    assert sections == {
        *("Step times", "Blocks over time", "Training", "Memory", "Operators", "History")
    }
    for figure in plain.page.charts:
        assert figure.title in figure.label
        assert figure.title.strip()
        assert UNITS & set(figure.texts), figure.title
        assert not any("$" in text for text in figure.texts)  # mathematics that nobody set
        assert [row for row in figure.rows if row]


def test_the_page_needs_nothing_else(plain: ParsedReport) -> None:
    assert len(plain.page.ids) == len(set(plain.page.ids))
    outside = [link for link in plain.page.references if not link.startswith(("#", "data:,"))]
    assert outside == []
    assert "<script" not in plain.html
    assert "default-src 'none'" in plain.html
    assert not re.search(r"url\((?!#)|@import", plain.html)


def test_the_same_runs_give_the_same_page(
    tmp_path: Path, documents: list[dict[str, Any]], plain: ParsedReport
) -> None:
    assert report(tmp_path, *documents).html == plain.html


def test_names_are_shown_as_they_are(tmp_path: Path) -> None:
    document = published(FP32)
    name = 'test_a[<script>alert("$x$ 数 \\|`@me`")</script>]'
    ours = record(document, FP32)
    key = f"test_step_time.py::{name}"
    document["perfsuite"]["items"][key] = document["perfsuite"]["items"].pop(ours["key"])
    ours["key"] = key
    found = report(tmp_path, document)
    shown = name.removeprefix("test_")
    assert shown in found.charts("Blocks over time")
    assert found.charts("Blocks over time")[shown].label.startswith(shown)
    assert "<script" not in found.html
    assert "@me" not in found.markdown
    assert "<script" not in found.markdown


def test_a_run_that_is_there_twice_is_not_its_own_past(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run,) = written(tmp_path, published(FP32))
    copy = tmp_path / "copy.json"
    copy.write_bytes(run.read_bytes())
    assert main(["report", str(run), str(copy), "-o", str(tmp_path / "out")]) == 0
    assert "the same run as" in capsys.readouterr().err
    assert "before:" not in read(tmp_path / "out").page.text


@pytest.mark.parametrize("text", ["<img src=x>", "@someone", "[x](http://evil)", "&#64;a", "a|b"])
def test_nothing_in_a_run_is_markup_in_a_summary(tmp_path: Path, text: str) -> None:
    document = published(PROBES)
    document["perfsuite"]["hardware"]["name"] = text
    document["perfsuite"]["unevaluated"] = [text]
    document["perfsuite"]["software"]["torch"] = text
    ours = record(document, PROBES)
    ours["verdicts"][0] |= {"word": text, "figure": text, "threshold": text, "reason": text}
    ours["reasons"] = [text]
    assert text not in report(tmp_path, document).markdown


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
        (foreign, "not a run of perfsuite"),
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
    runs, out = written(tmp_path, published(PROBES), published(PROBES)), tmp_path / "out"
    break_it(runs[0], out)
    before = sorted(tmp_path.rglob("*"))
    assert main(["report", *map(str, runs), "-o", str(out)]) == 1
    said = capsys.readouterr().err
    assert said.startswith("perfsuite: ")
    assert said.count("\n") == 1
    assert message in said
    assert sorted(tmp_path.rglob("*")) == before
