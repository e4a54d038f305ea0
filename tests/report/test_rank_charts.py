"""Charts of ranks show each one's time, or how very many lie, and which one is the slowest."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from reports import content, published, record

from perfsuite.judging.blocks import Block
from perfsuite.judging.scaling import Scaling

FP32 = "test_step_time[fp32]"
SPEEDUP = "test_amp_speedup[bf16-vs-fp32]"


def block(*ranks_s: float, **about: Any) -> dict[str, Any]:
    return Block(steps=10, wall_s=max(ranks_s), ranks_s=ranks_s, **about).kept()


def charts_of(tmp_path: Path, blocks: list[dict[str, Any]]) -> Any:
    document = published(FP32)
    record(document, FP32)["raw"]["blocks"] = blocks
    return content(tmp_path, document).charts("Ranks")


def test_each_rank_has_its_median_and_the_slowest_its_name(tmp_path: Path) -> None:
    blocks = [block(0.010, 0.011, 0.0115 + late_s, 0.010) for late_s in (0.0, 0.001, 0.002)]
    (chart,) = charts_of(tmp_path, blocks).values()
    assert chart.chart.title == "step_time[fp32]: a row of ranks"
    assert chart.row("2 (slowest)")[:3] == pytest.approx([0.0125, 0.012, 0.013])
    assert chart.row("2 (slowest)")[3] == "+25.0%"
    assert chart.row("0") == [0.010, 0.010, 0.010, "-9.1%"]
    texts = chart.drawn().texts
    assert {"slowest: rank 2, +25.0%", "rank", "ms a step"} <= set(texts)


def test_of_very_many_ranks_the_picture_shows_how_they_lie(tmp_path: Path) -> None:
    healthy, late = [0.010] * 511, [block(*[0.010] * 7, 0.020, *[0.010] * 504)] * 2
    (chart,) = charts_of(tmp_path, [*late, block(*healthy, 0.012)]).values()
    assert chart.chart.title == "step_time[fp32]: 512 ranks"
    assert chart.row("slowest rank") == [0.012, 0.020, 0.020]
    assert chart.row("most often the slowest")[0] == "rank 7 in 2 of 3 blocks"
    assert {"slowest rank", "median rank", "block"} <= set(chart.drawn().texts)


def test_both_arms_have_a_row(tmp_path: Path) -> None:
    document = published(SPEEDUP)
    turns = {"order": "ABBA", "arms": ["fp32", "bf16"], "blocks": [block(0.02, 0.01)] * 4}
    record(document, SPEEDUP)["raw"]["duet"] = turns
    name = "amp_speedup[bf16-vs-fp32]"
    assert set(content(tmp_path, document).charts("Ranks")) == {
        f"{name}: {arm}: a row of ranks" for arm in ("fp32", "bf16")
    }


def test_turns_of_strong_scaling_are_shown_by_their_name(tmp_path: Path) -> None:
    document = published(SPEEDUP)
    turns = {"order": "ABBA", "arms": ["one", "all"], "blocks": [block(0.02, 0.01)] * 4}
    record(document, SPEEDUP)["raw"]["duet strong"] = turns
    name = "amp_speedup[bf16-vs-fp32]: strong scaling"
    assert f"{name}: all: a row of ranks" in content(tmp_path, document).charts("Ranks")


def test_beside_ranks_that_took_no_time_nothing_is_known(tmp_path: Path) -> None:
    (chart,) = charts_of(tmp_path, [block(0.01, 0.0, 0.0)]).values()
    assert chart.row("0 (slowest)")[3] == "unknown"


def test_throttled_blocks_are_left_out(tmp_path: Path) -> None:
    blocks = [block(0.01, 0.02), block(0.09, 0.02, throttled=("heat",))]
    (chart,) = charts_of(tmp_path, blocks).values()
    assert chart.row("0")[0] == 0.01


WEAK = Scaling(
    how="weak", ranks=8, samples=32, alone_s=0.010, step_s=0.011, efficiency=0.909,
    low=0.90, high=0.92,
)  # fmt: skip
STRONG = Scaling(how="strong", ranks=8, why_not="256 samples do not fit into one rank's memory")


def scaled(tmp_path: Path, raw: Any) -> Any:
    document = published(FP32)
    record(document, FP32)["raw"]["scaling"] = raw
    return content(tmp_path, document).charts("Ranks")


def test_an_efficiency_is_shown_beside_the_ideal(tmp_path: Path) -> None:
    chart = scaled(tmp_path, [asdict(WEAK), asdict(STRONG)])["Scaling"]
    told = [8, 0.010, 0.011, 0.909, 0.90, 0.92, ""]
    assert chart.row("step_time[fp32]: weak") == told
    assert chart.row("step_time[fp32]: strong") == [8, *["unknown"] * 5, STRONG.why_not]
    assert {"ideal", "efficiency"} <= set(chart.drawn().texts)


@pytest.mark.parametrize("raw", [None, 3, [{}], [asdict(STRONG)]])
def test_what_does_not_scale_by_a_figure_has_no_picture(tmp_path: Path, raw: Any) -> None:
    assert scaled(tmp_path, raw) == {}


@pytest.mark.parametrize(
    "blocks",
    [
        [{"steps": 10, "wall_s": 0.01}],
        [block(0.01, 0.02), block(0.01, 0.02, 0.03)],
        [block(0.01, 0.02, throttled=("heat",))],
    ],
    ids=["of one rank", "of other numbers of ranks", "throttled"],
)
def test_a_run_that_does_not_tell_has_no_such_section(
    tmp_path: Path, blocks: list[dict[str, Any]]
) -> None:
    assert charts_of(tmp_path, blocks) == {}
