"""Charts of levers, and the page of the ladder, show the figures of the run's JSON."""

import json
from pathlib import Path
from typing import Any

import ladder_page
import pytest
from reports import content, published, record

SPEEDUP = "test_amp_speedup[bf16-vs-fp32]"
LADDER = "test_ladder.py::test_ladder"
GAIN = {"value": 1.77, "low": 1.71, "high": 1.83, "confidence": 0.99, "n": 9}
LEVERS: list[dict[str, Any]] = [
    {"name": "foot", "samples_per_s": 100.0, "share_of_ceiling": 0.1, "memory_bytes": 1000},
    {
        "name": "channels_last",
        "against": "foot",
        "samples_per_s": 177.0,
        "gain": GAIN,
        "loss_apart": "0.001",
        "slower_by": ["aten::a", "aten::b"],
    },
    {"name": "torch.compile", "against": "channels_last", "left_out": "it was not ready"},
]


def test_a_row_tells_what_came_of_a_lever(tmp_path: Path) -> None:
    document = published(SPEEDUP)
    record(document, SPEEDUP)["raw"]["levers"] = LEVERS
    (chart,) = content(tmp_path, document).charts("Levers").values()
    assert chart.row("foot") == [100.0, "", "", "10.0%", 1000.0, "", "", ""]
    told = [177.0, "1.77x [1.71, 1.83]", "foot", "", "", "", "0.001", "aten::a; aten::b"]
    assert chart.row("channels_last") == told
    assert chart.row("torch.compile")[:3] == ["left out", "it was not ready", "channels_last"]
    assert {"foot", "channels_last"} <= set(chart.drawn().texts)


def test_the_page_of_the_ladder_has_a_section_for_each_machine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = published(SPEEDUP)
    kept = record(document, SPEEDUP)
    run, docs = tmp_path / "run.json", tmp_path / "docs"
    (docs / "runs").mkdir(parents=True)
    run.write_text(json.dumps(document), encoding="utf-8")
    assert ladder_page.main([str(run), str(docs)]) == 1
    assert "it has no ladder" in capsys.readouterr().err
    assert not list(docs.glob("*.md"))
    kept["raw"]["levers"] = LEVERS
    document["perfsuite"]["items"] = {LADDER: "passed"}
    kept["key"] = LADDER
    run.write_text(json.dumps(document), encoding="utf-8")
    assert ladder_page.main([str(run), str(docs)]) == 0
    page = (docs / "ladder.md").read_text(encoding="utf-8")
    (picture,) = docs.glob("*.svg")
    assert f"]({picture.name})" in page
    assert "| channels_last | 177 | 1.77x [1.71, 1.83] | foot |" in page
    assert "| torch.compile | left out | it was not ready | channels_last |" in page
    assert ladder_page.main([str(docs)]) == 0
    assert (docs / "ladder.md").read_text(encoding="utf-8") == page
