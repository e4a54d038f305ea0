"""Pictures of a history: one panel a figure, with the changes marked."""

import io
from collections.abc import Sequence
from itertools import pairwise
from statistics import median

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from perfsuite.history import Series
from perfsuite.runs import short_name

__all__ = ["draw_history"]

_WIDTH_IN, _PANEL_IN = 9.0, 2.2
_POINT, _LEVEL, _WORSE, _BETTER = "#5b7083", "#1f3a52", "#b3261e", "#1b7f4b"


def draw_history(histories: Sequence[Series], title: str) -> bytes:
    """Return a picture of series, as SVG.

    Each run is a dot, the median of each stretch a line, and each change an upright line with
    its size: red for the worse, green for the better.

    Args:
        histories: at least one.
        title: says whose they are.
    """
    figure = Figure(figsize=(_WIDTH_IN, _PANEL_IN * len(histories) + 0.6), layout="constrained")
    FigureCanvasSVG(figure)
    figure.suptitle(title, fontsize=10)
    panels = figure.subplots(len(histories), squeeze=False)[:, 0]
    for panel, series in zip(panels, histories, strict=True):
        values = [point.value for point in series.points]
        panel.plot(range(1, len(values) + 1), values, ".", color=_POINT, markersize=4)
        changes = series.changes()
        edges = [0, *(change.at for change in changes), len(values)]
        for start, end in pairwise(edges):
            level = median(values[start:end])
            panel.plot([start + 1, end], [level, level], color=_LEVEL, linewidth=1.2)
        for change in changes:
            colour = _WORSE if series.worse(change) else _BETTER
            panel.axvline(change.at + 0.5, color=colour, linewidth=1)
            panel.annotate(
                f"{change.ratio - 1:+.1%}",
                (change.at + 0.5, 1),
                xycoords=("data", "axes fraction"),
                xytext=(3, -9),
                textcoords="offset points",
                color=colour,
                fontsize=8,
            )
        panel.set_title(f"{short_name(series.key)} {series.name}", fontsize=9, loc="left")
        panel.set_ylabel(series.unit, fontsize=8)
        panel.tick_params(labelsize=8)
        panel.margins(x=0.02)
    panels[-1].set_xlabel("run, the oldest first", fontsize=8)
    out = io.BytesIO()
    # Without a date, and with fixed ids, the same history is the same file.
    with mpl.rc_context({"svg.hashsalt": "perfsuite", "svg.fonttype": "none"}):
        figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()
