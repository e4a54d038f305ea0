"""Pictures show the figures that they are given, where and how they should."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from perfsuite.records.history import Point, Series
from perfsuite.report import panels
from perfsuite.report.svg import COLOURS, draw, inline


@pytest.fixture
def axes() -> Axes:
    return Figure().subplots()


def lines(axes: Axes, marker: str) -> list[tuple[str, list[float], list[float]]]:
    """Return (colour, x, y) of the lines with a marker."""
    return [
        (
            to_hex(str(line.get_color())),
            list(map(float, np.asarray(line.get_xdata()))),
            list(map(float, np.asarray(line.get_ydata()))),
        )
        for line in axes.get_lines()
        if line.get_marker() == marker
    ]


def series(values: list[float], better: str = "lower") -> Series:
    points = tuple(
        Point(value=v, started=f"2026-01-{n:02}", commit="a", software={}, path=Path("a"))
        for n, v in enumerate(values, start=1)
    )
    return Series(key="a", name="bytes", unit="B", better=better, points=points, left_out=0)


@pytest.mark.parametrize(("better", "colour"), [("lower", "bad"), ("higher", "good")])
def test_a_history_has_its_points_levels_and_change(axes: Axes, better: str, colour: str) -> None:
    panels.history(axes, series([10.0] * 4 + [12.0] * 5, better))
    assert lines(axes, ".") == [(COLOURS["muted"], [*range(1, 10)], [10.0] * 4 + [12.0] * 5)]
    first, second, change = lines(axes, "None")
    assert first == (COLOURS["ink"], [1.0, 4.0], [10.0, 10.0])
    assert second == (COLOURS["ink"], [5.0, 9.0], [12.0, 12.0])
    assert change[:2] == (COLOURS[colour], [4.5, 4.5])
    (said,) = [text.get_text() for text in axes.texts]
    assert said == f"+20.0%, {'worse' if colour == 'bad' else 'better'}"
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("B", "run, the oldest first")


def test_a_level_is_the_median_of_its_stretch(axes: Axes) -> None:
    panels.history(axes, series([10.0, 10.0, 10.0, 11.0, 10.5]))
    levels = [y for _, _, y in lines(axes, "None")]
    assert [10.0, 10.0] in levels or [10.5, 10.5] in levels


def test_intervals_reach_from_end_to_end_and_none_is_made_up(axes: Axes) -> None:
    panels.intervals(axes, [("a", 5.0, 4.0, 7.0), ("b", 2.0, 2.0, 2.0)])
    assert lines(axes, "o") == [
        (COLOURS["first"], [5.0], [0.0]),
        (COLOURS["first"], [2.0], [1.0]),
    ]
    assert lines(axes, "|") == [(COLOURS["first"], [4.0, 7.0], [0.0, 0.0])]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
    assert axes.get_xlim()[0] == 0
    assert axes.get_xlim()[1] > 7


def test_blocks_stand_where_they_were_timed_and_throttled_ones_are_crossed(axes: Axes) -> None:
    arms = [("x", [(0.1, 3.0, False), (0.4, 9.0, True)]), ("y", [(0.2, 2.0, False)])]
    panels.turns(axes, arms)
    assert lines(axes, "o") == [(COLOURS["first"], [0.1, 0.4], [3.0, 9.0])]
    assert lines(axes, "^") == [(COLOURS["second"], [0.2], [2.0])]
    assert lines(axes, "x") == [(COLOURS["bad"], [0.4], [9.0])]
    assert axes.get_ylim()[0] == 0
    assert axes.get_ylim()[1] > 9


def test_losses_have_a_line_and_a_band(axes: Axes) -> None:
    runs = {"fp32": [(2.0, 1.0, 3.0), (1.5, 0.5, 2.5)], "bf16": []}
    panels.losses(axes, runs)
    assert lines(axes, "None") == [(COLOURS["first"], [1, 2], [2.0, 1.5])]
    (band,) = axes.collections
    corners = {tuple(corner) for corner in band.get_paths()[0].vertices.tolist()}  # type: ignore[union-attr]  # an array
    assert {(1, 1), (1, 3), (2, 0.5), (2, 2.5)} <= corners


def test_a_scale_falls_at_the_step_that_was_skipped(axes: Axes) -> None:
    panels.scales(axes, [([8.0, 8.0, 4.0], [2])])
    assert lines(axes, "x") == [(COLOURS["bad"], [2], [4.0])]
    (scale,) = lines(axes, "None")
    assert scale == (COLOURS["first"], [0.0, 1.0, 2.0], [8.0, 8.0, 4.0])
    assert axes.get_yscale() == "log"


def test_bars_are_as_long_as_their_quantity(axes: Axes) -> None:
    panels.bars(axes, {"a": (3.0, 1.0), "b": (2.0, None)}, ("before", "now"), "ms")
    before, now = ([bar.get_width() for bar in each] for each in axes.containers)
    assert before == [3.0, 2.0]
    assert now == [1.0, 0.0]
    # Before lies above now, and a above b.
    heights = [[bar.get_y() for bar in each] for each in axes.containers]
    assert heights[0][0] < heights[1][0] < heights[0][1] < heights[1][1]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]


def test_long_names_keep_what_tells_them_apart(axes: Axes) -> None:
    names = [f"a_name_that_is_much_too_long_to_show: {arm}" for arm in ("fp32", "bf16")]
    panels.bars(axes, dict.fromkeys(names, (1.0,)), ("kept",), "B")
    shown = [label.get_text() for label in axes.get_yticklabels()]
    assert len(set(shown)) == 2
    assert all(len(name) <= 30 for name in shown)


def test_a_picture_on_a_page_takes_the_pages_colours_and_no_name_twice() -> None:
    panel = lambda axes: panels.intervals(axes, [("a", 5.0, 4.0, 7.0)])  # noqa: E731  # a panel
    first, second = (
        inline(draw([panel], width_in=4, panel_in=2, salt=salt), label='"<a>"') for salt in "ab"
    )
    assert not any(colour in first for colour in COLOURS.values())
    assert "var(--ink)" in first
    assert 'aria-label="&quot;&lt;a&gt;&quot;"' in first
    names = [{part.split('"')[0] for part in each.split(' id="')[1:]} for each in (first, second)]
    assert names[0]
    assert not names[0] & names[1]
