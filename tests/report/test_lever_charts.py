"""Charts of levers, and the page of the ladder, show the figures of the run's JSON."""

import json
from pathlib import Path
from typing import Any

import ladder_page
import pytest
from reports import content, published, record

from perfsuite.records.operators import Operator, profile_of
from perfsuite.records.schema import Benchmark

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
    assert "\n\nThe top rung is *channels_last*.\n" in page
    assert ladder_page.main([str(docs)]) == 0
    assert (docs / "ladder.md").read_text(encoding="utf-8") == page


def ladder(*tried: dict[str, Any], **about: Any) -> Benchmark:
    raw = {"levers": list(tried), "convolutions": about.pop("convolutions", [])}
    return Benchmark(key=LADDER, config={}, metrics={}, verdicts=[], raw=raw, **about)


SLOWER = GAIN | {"value": 0.8, "low": 0.7, "high": 0.9}
PROFILE = profile_of(
    {
        "aten::convolution_backward": Operator(self_s=0.5, calls=1.0),
        "aten::mkldnn_convolution": Operator(self_s=0.3, calls=1.0),
        "aten::add": Operator(self_s=0.1, calls=1.0),
    },
    step_s=1.0,
    clock="cpu",
)


def test_the_top_is_told_by_its_share_its_products_and_the_texts_own_loop() -> None:
    found = ladder(
        {"name": "fp32", "samples_per_s": 5.0},
        {"name": "mixed precision", "samples_per_s": 10.0, "gain": SLOWER},
        {"name": "fused Adam", "samples_per_s": 25.0, "step_s": 1.0, "share_of_ceiling": 0.4,
         "gain": GAIN},
        {"name": "torch.compile", "samples_per_s": 20.0, "gain": SLOWER},
        {"name": "CUDA graph", "left_out": "cpu has no graphs"},
        operators=PROFILE,
        convolutions=[
            {"operator": "convolution", "shapes": [[8, 4, 5, 5], [6, 4, 3, 3]],
             "flop_per_s": 2e12, "share_of_ceiling": 0.61},
            {"operator": "convolution_backward", "shapes": [], "flop_per_s": 3e12},
        ],
    )  # fmt: skip
    assert ladder_page.how_high(found) == [
        "The top rung is *fused Adam*: 40.0% of the ceiling in the whole step; 80% of its time in"
        " products, at 50.0% of the ceiling; 2.50 times as fast as *mixed precision* alone.",
        "",
        "Its largest convolutions, each timed by itself:",
        "",
        "- `convolution` of 8x4x5x5 and 6x4x3x3: 2 TFLOP/s, 61.0% of the ceiling",
        "",
    ]
    assert found.operators is not None
    assert ladder_page.what_holds(found.operators)[4:] == [
        "| `aten::convolution_backward` | 500 ms | 50.0% |",
        "| `aten::mkldnn_convolution` | 300 ms | 30.0% |",
        "| `aten::add` | 100 ms | 10.0% |",
        "| all others | 0 ms | 0.0% |",
        "| outside of operators | 100 ms | 10.0% |",
        "",
    ]


def test_mixed_precision_is_the_top_where_nothing_is_faster() -> None:
    found = ladder(
        {"name": "fp32", "samples_per_s": 5.0},
        {"name": "mixed precision", "samples_per_s": 4.0, "gain": SLOWER},
        {"name": "torch.compile", "samples_per_s": 3.0, "gain": SLOWER},
    )
    assert ladder_page.how_high(found)[0] == "The top rung is *mixed precision*."


def test_products_above_the_ceiling_are_not_told() -> None:
    found = ladder(
        {"name": "fp32", "samples_per_s": 5.0, "step_s": 4.0, "share_of_ceiling": 0.9},
        operators=PROFILE,
    )
    assert ladder_page.how_high(found)[0].endswith("80% of its time in products.")
