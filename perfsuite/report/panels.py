"""Each kind of picture, on one panel. Axes have units; no difference is shown by colour alone."""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from statistics import median

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from perfsuite.records.history import Series
from perfsuite.records.wording import short_name
from perfsuite.report.svg import COLOURS, draw

_ARMS = (("first", "o"), ("second", "^"))
"""Colour and mark of each arm."""
_NAME = 30
"""Letters of a name beside a bar or an interval."""


def draw_history(histories: Sequence[Series], title: str) -> bytes:
    """Return a picture of series, at least one, as SVG: a panel each."""

    def named(axes: Axes, series: Series) -> None:
        history(axes, series)
        axes.set_title(f"{short_name(series.key)} {series.name}", pad=14)  # above the changes

    panels = [partial(named, series=series) for series in histories]
    return draw(panels, width_in=9.0, panel_in=2.2, title=title)


def history(axes: Axes, series: Series) -> None:
    """Draw a figure run by run: a dot each, the median of each stretch, and the changes.

    A change is a vertical line with its size: red if it is worse, green if it is better.
    """
    values = [point.value for point in series.points]
    axes.plot(range(1, len(values) + 1), values, ".", color=COLOURS["muted"])
    changes = series.changes()
    edges = [0, *(change.at for change in changes), len(values)]
    for start, end in pairwise(edges):
        level = median(values[start:end])
        axes.plot([start + 1, end], [level, level], color=COLOURS["ink"])
    for change in changes:
        colour = COLOURS["bad" if change.worse else "good"]
        axes.axvline(change.at + 0.5, color=colour, linewidth=1)
        axes.annotate(
            str(change),
            (change.at + 0.5, 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, 2),
            textcoords="offset points",
            horizontalalignment="center",
            color=colour,
        )
    axes.set_ylabel(series.unit)
    axes.set_xlabel("run, the oldest first")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(x=0.02)


def draw_path(
    levels: Mapping[int, tuple[float, float, float]],
    changes: Sequence[tuple[int, int, str]],
    *,
    title: str,
    steps: str,
) -> bytes:
    """Return a picture of a figure along a row of versions, as SVG.

    A level is (times the first version's, low end of its interval, high end), by version; a change
    is (first step, last step, what is written above it).
    """

    def path(axes: Axes) -> None:
        at = sorted(levels)
        value, low, high = zip(*(levels[version] for version in at), strict=True)
        axes.vlines(at, low, high, color=COLOURS["first"])
        axes.plot(at, value, "o", color=COLOURS["first"])
        for first, last, text in changes:
            axes.axvspan(first - 0.9, last - 0.1, color=COLOURS["bad"], alpha=0.25, linewidth=0)
            axes.annotate(
                text,
                ((first + last) / 2 - 0.5, 1),
                xycoords=("data", "axes fraction"),
                xytext=(0, 2),
                textcoords="offset points",
                horizontalalignment="center",
                color=COLOURS["bad"],
            )
        axes.set_xlabel(f"{steps}, 0 is the good end")
        axes.set_ylabel("times the good end")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))

    return draw([path], width_in=9.0, panel_in=2.8, title=title, salt=title)


def intervals(
    axes: Axes, rows: Sequence[tuple[str, float, float, float]], unit: str = "ms a step"
) -> None:
    """Draw step times, or figures of another unit, a row each, with their intervals.

    A row is (name, figure, low end of the interval, high end); both ends are the figure itself
    where there is no interval.
    """
    for at, (_, value, low, high) in enumerate(rows):
        if low < high:
            axes.plot([low, high], [at, at], color=COLOURS["first"], solid_capstyle="butt")
            axes.plot([low, high], [at, at], "|", color=COLOURS["first"], markersize=7)
        axes.plot([value], [at], "o", color=COLOURS["first"])
    _name_rows(axes, [name for name, *_ in rows])
    axes.set_xlim(0, 1.05 * max(high for *_, high in rows))
    axes.set_xlabel(unit)


def scaling(axes: Axes, rows: Sequence[tuple[str, float, float, float]]) -> None:
    """Draw efficiencies, a row each, with their intervals, beside the ideal, which is 1."""
    intervals(axes, rows, "efficiency")
    axes.axvline(1, color=COLOURS["ink"], linestyle="--", linewidth=1, label="ideal")
    axes.set_xlim(0, 1.05 * max(1.0, *(high for *_, high in rows)))
    _name_marks(axes)


def turns(axes: Axes, arms: Sequence[tuple[str, Sequence[tuple[float, float, bool]]]]) -> None:
    """Draw blocks in the order in which they were timed.

    An arm is (name, blocks); a block is (seconds at its end, ms a step, throttled).
    """
    throttled = []
    for (colour, mark), (name, blocks) in zip(_ARMS, arms, strict=False):
        at_s, ms = [block[0] for block in blocks], [block[1] for block in blocks]
        axes.plot(at_s, ms, mark, color=COLOURS[colour], label=name, fillstyle="none")
        throttled += [block[:2] for block in blocks if block[2]]
    if throttled:
        axes.plot(*zip(*throttled, strict=True), "x", color=COLOURS["bad"], label="throttled")
    highest_ms = max(block[1] for _, blocks in arms for block in blocks)
    axes.set_ylim(0, 1.08 * highest_ms)
    axes.set_xlabel("seconds of timing")
    axes.set_ylabel("ms a step")
    _name_marks(axes)


def row_of_ranks(
    axes: Axes, ranks: Sequence[tuple[float, float, float]], slowest: tuple[int, str]
) -> None:
    """Draw ms a step by rank: lower quartile, median, upper quartile; the slowest has its label."""
    low, middle, high = zip(*ranks, strict=True)
    axes.vlines(range(len(ranks)), low, high, color=COLOURS["first"])
    axes.plot(range(len(ranks)), middle, "o", color=COLOURS["first"], markersize=4)
    at, label = slowest
    axes.plot([at], [middle[at]], "^", color=COLOURS["bad"], markersize=8, label=label)
    axes.set_ylim(0, 1.1 * max(high))
    axes.set_xlabel("rank")
    axes.set_ylabel("ms a step")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _name_marks(axes)


def ranks_by_block(axes: Axes, blocks: Sequence[tuple[float, float, float]]) -> None:
    """Draw ms a step of very many ranks by block: the lowest, the median and the highest."""
    numbers = range(1, len(blocks) + 1)
    low, middle, high = zip(*blocks, strict=True)
    axes.fill_between(numbers, low, high, color=COLOURS["first"], alpha=0.18, linewidth=0)
    axes.plot(numbers, high, "^", color=COLOURS["bad"], markersize=4, label="slowest rank")
    axes.plot(numbers, middle, ".-", color=COLOURS["first"], label="median rank")
    axes.set_ylim(0, 1.1 * max(high))
    axes.set_xlabel("block")
    axes.set_ylabel("ms a step")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _name_marks(axes)


def losses(axes: Axes, runs: Mapping[str, Sequence[tuple[float, float, float]]]) -> None:
    """Draw losses by precision: for each step the mean over seeds, the lowest and the highest."""
    for (colour, _), line, (name, steps) in zip(_ARMS, ("-", "--"), runs.items(), strict=False):
        if not steps:
            continue
        numbers = range(1, len(steps) + 1)
        mean, low, high = zip(*steps, strict=True)
        axes.fill_between(numbers, low, high, color=COLOURS[colour], alpha=0.18, linewidth=0)
        axes.plot(numbers, mean, line, color=COLOURS[colour], label=name)
    axes.set_xlabel("training step")
    axes.set_ylabel("loss")
    _name_marks(axes)


def scales(axes: Axes, runs: Sequence[tuple[Sequence[float], Sequence[int]]]) -> None:
    """Draw the gradient scaler's scale by step, and the steps that it skipped.

    For each seed: the scale before the first step and after each, and which steps were skipped,
    the first being 1.
    """
    skipped = []
    for values, steps in runs:
        axes.step(range(len(values)), values, where="post", color=COLOURS["first"], alpha=0.7)
        skipped += [(step, values[step]) for step in steps]
    if skipped:
        marks = zip(*skipped, strict=True)
        axes.plot(*marks, "x", color=COLOURS["bad"], markersize=6, label="skipped step")
        _name_marks(axes)
    axes.set_yscale("log", base=2)
    axes.yaxis.set_major_formatter("{x:g}")  # a power would be set as mathematics
    axes.set_xlabel("training step")
    axes.set_ylabel("loss scale (factor)")


def bars(
    axes: Axes, rows: Mapping[str, Sequence[float | None]], kinds: Sequence[str], unit: str
) -> None:
    """Draw quantities by name, a bar for each of one or two kinds; the first name is on top."""
    height = 0.8 / len(kinds)
    for kind, name in enumerate(kinds):
        places = [at + (kind - (len(kinds) - 1) / 2) * height for at in range(len(rows))]
        values = [row[kind] or 0.0 for row in rows.values()]
        colour = COLOURS[_ARMS[kind][0]]
        axes.barh(
            places,
            values,
            height * 0.9,
            label=name,
            edgecolor=colour,
            # Hatched too, so that the kinds differ without colour.
            facecolor="none" if kind else colour,
            hatch="////" if kind else "",
        )
    _name_rows(axes, list(rows))
    axes.set_xlabel(unit)
    if len(kinds) > 1:
        _name_marks(axes)


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    # What tells two long names apart stands at either end.
    short = [n if len(n) <= _NAME else f"{n[: _NAME // 2]}…{n[-_NAME // 2 + 1 :]}" for n in names]
    axes.set_yticks(range(len(names)), short)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")


def _name_marks(axes: Axes) -> None:
    """Name what is drawn, above the panel, where it hides nothing."""
    axes.legend(
        loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, borderaxespad=0, handlelength=1.6
    )
