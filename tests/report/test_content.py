"""What a report says: verdicts with the worst first, a headline, and nothing that misleads."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from reports import content, published, record, report

FP32 = "test_step_time[fp32]"


def test_what_failed_is_first_with_its_reasons(tmp_path: Path) -> None:
    document = published("test_step_time[bf16]", "test_tutorial[bf16]")
    of_bf16 = record(document, "test_step_time[bf16]")
    document["perfsuite"]["items"][of_bf16["key"]] = "failed"
    slow = {"gate": "compare step_s", "outcome": "FAIL", "figure": "1.5x", "threshold": "at most"}
    of_bf16["verdicts"].append(slow)
    of_bf16 |= {"raw": {}, "operators": None}  # charts take time to draw
    of_bf16["reasons"] = ["profiled: 1 ms -> 2 ms a step", "aten::mm | <b>: 1 ms -> 2 ms"]
    found = report(tmp_path, document)
    assert found.page.text.count("Red: 1 of 2 benchmarks failed") == 2  # title and heading
    first = next(row for row in found.page.verdicts if row)
    assert first[:3] == ["FAIL", "step_time[bf16] compare step_s", "1.5x"]
    assert "aten::mm | <b>: 1 ms -> 2 ms" in first[3]
    assert r"aten::mm \| &lt;b>: 1 ms -> 2 ms" in found.markdown
    assert "## Red: 1 of 2 benchmarks failed" in found.markdown
    assert "| 🔴 FAIL | step\\_time\\[bf16\\] compare step\\_s | 1.5x |" in found.markdown


@pytest.mark.parametrize(
    ("change", "headline", "row"),
    [
        (
            lambda ours: ours["items"].update({"test_new.py::test_crashed": "error"}),
            "Red: 1 of 2 benchmarks failed",
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
    tmp_path: Path, change: Callable[[Any], object], headline: str, row: list[str] | None
) -> None:
    document = published("test_amp_memory[bf16]")
    change(document["perfsuite"])
    found = report(tmp_path, document)
    assert headline in found.page.text
    assert f"## {headline}" in found.markdown
    if row is not None:
        assert next(each for each in found.page.verdicts if each)[:3] == row
    else:
        assert "not compared, and so not green: a skipped" in found.page.text
        assert "- not compared, and so not green: a skipped" in found.markdown


def test_an_error_beside_an_unclear_verdict_has_its_line(tmp_path: Path) -> None:
    document = published()
    ours = record(document, FP32)
    ours["verdicts"][0]["outcome"] = "INCONCLUSIVE"
    document["perfsuite"]["items"][ours["key"]] = "error"
    words = [word for word, *_ in content(tmp_path, document).verdicts()]
    assert words[:2] == ["ERROR", "INCONCLUSIVE"]


def test_a_lasting_change_has_its_line_in_the_summary(tmp_path: Path) -> None:
    name = "test_amp_memory[bf16]"
    documents = [published(name) for _ in range(6)]
    for document in documents[3:]:
        for metric in record(document, name)["metrics"].values():
            metric["value"] *= 1.25
    found = report(tmp_path, *documents)
    assert "### History" in found.markdown
    assert "+25.0%, worse, from run 4 on" in found.markdown


def test_a_run_without_figures_to_compare_has_a_report(tmp_path: Path) -> None:
    documents = [published(), published()]
    for document in documents:
        for benchmark in document["benchmarks"]:
            benchmark["extra_info"]["perfsuite"]["metrics"] = {}
    assert content(tmp_path, *documents).page.headline == "Green: 10 benchmarks, none failed"


def test_a_history_is_of_figures_that_the_run_has(tmp_path: Path) -> None:
    document = published()
    del record(document, FP32)["metrics"]["step_s"]
    charts = content(tmp_path, *[published()] * 4, document).charts("History")
    assert "step_time[bf16] step_s" in charts
    assert "step_time[fp32] step_s" not in charts


def test_what_was_suspected_is_told_with_what_came_of_it_and_what_it_cost(tmp_path: Path) -> None:
    document = published(FP32, "test_step_time[bf16]")
    suspected = {"gate": "compare step_s", "outcome": "INCONCLUSIVE", "figure": "1.06x"}
    same = {"gate": "compare step_s", "outcome": "PASS", "figure": "1.001x", "word": "SAME"}
    asked = {"threshold": "within 5%"}
    block = {"steps": 2, "wall_s": 0.02}
    turns = {"step_s": {"order": "ABBA", "blocks": [block] * 4}}
    cleared, unclear = record(document, FP32), record(document, "test_step_time[bf16]")
    cleared["verdicts"].append(same | asked)
    cleared["confirmation"] = {
        "suspected": [suspected | asked],
        "took_s": 43.2,
        "turns": {"restarts": [{"started": "AB", "turns": turns}] * 8, "profiles": {}},
    }
    unclear["verdicts"].append(suspected | asked)
    unclear["confirmation"] = {"suspected": [suspected | asked], "why_not": "the commit is gone"}
    page = content(tmp_path, document)
    first, second = page.page.suspicions
    assert (first.name, first.suspected) == ("step_time[fp32] compare step_s", "1.06x")
    assert (first.found, first.cost) == ("SAME 1.001x", "8 pairs, 43 s")
    assert (second.found, second.cost) == ("not measured again: the commit is gone", "")
    assert "step_time[fp32]: measured again" in " ".join(page.charts("Blocks over time"))
    (tmp_path / "written").mkdir()
    found = report(tmp_path / "written", document)
    assert "Suspected, and measured again" in found.page.text
    assert "SAME 1.001x | 8 pairs, 43 s |" in found.markdown
