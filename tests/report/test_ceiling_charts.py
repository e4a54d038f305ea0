"""Charts of ceilings show the figures of the run's JSON."""

from pathlib import Path
from typing import Any

import pytest
from reports import content, published, record

FP32 = "test_step_time[fp32]"
CEILINGS = {
    "products": {"fp32": 2e11, "bf16": 4e11},
    "convolutions": {"fp32": 3e11},
    "bytes_per_s": 2e10,
    "launch_s": 1.5e-6,
    "unmeasured": {"bf16 convolution": "no such kernel"},
}


def charts_of(tmp_path: Path, **raw: Any) -> Any:
    document = published(FP32)
    record(document, FP32)["raw"].update(raw)
    return content(tmp_path, document).charts("Step times")


def test_a_share_is_a_bar_beside_its_ceiling(tmp_path: Path) -> None:
    rates = {"samples/s": 100.0, "TFLOP/s": 0.05, "share of ceiling": 0.25}
    chart = charts_of(tmp_path, throughput=rates)["Share of ceiling"]
    assert chart.row("step_time[fp32]") == pytest.approx([0.05, 0.2, "25.0%"])
    assert {"step", "ceiling"} <= set(chart.drawn().texts)


def test_ceilings_are_shown_by_precision(tmp_path: Path) -> None:
    chart = charts_of(tmp_path, ceilings=CEILINGS)["Ceilings of this device"]
    assert chart.row("fp32") == pytest.approx([0.2, 0.3])
    assert chart.row("bf16") == pytest.approx([0.4, "unknown"])
    caption = chart.chart.caption
    assert "20 GB/s" in caption
    assert "1.5 µs" in caption


@pytest.mark.parametrize("raw", [None, [], {"products": {}}, {"TFLOP/s": 0.05}])
def test_a_run_that_does_not_tell_has_no_such_chart(tmp_path: Path, raw: Any) -> None:
    charts = charts_of(tmp_path, throughput=raw, ceilings=raw)
    assert not {"Share of ceiling", "Ceilings of this device"} & set(charts)
