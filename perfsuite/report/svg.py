"""Pictures as SVG: what all of them have in common, whatever they show.

A picture that stands by itself has the colours of a light page. Inside a page its colours
become that page's, by their names, so that it turns dark where the page does.
"""

import io
import re
import warnings
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

COLOURS = {
    "paper": "#fdfdfc",
    "ink": "#1d2733",
    "muted": "#5e6b79",
    "rule": "#d6dbe0",
    "first": "#2563a8",
    "second": "#b8560f",
    "good": "#1b7a48",
    "bad": "#b3261f",
}
"""By name, as they are on a light page: each is dark enough on paper to be read as text."""

Draw = Callable[[Axes], None]
"""Draws one panel."""

_STYLE: dict[Any, Any] = {  # matplotlib's own type of the keys is private to it
    "axes.edgecolor": COLOURS["muted"],
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.labelcolor": COLOURS["ink"],
    "axes.labelsize": 9,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 9,
    "figure.facecolor": COLOURS["paper"],
    "font.size": 9,
    "grid.color": COLOURS["rule"],
    "grid.linewidth": 0.6,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "lines.markersize": 4,
    "svg.fonttype": "none",  # text stays text: it can be read aloud, searched and enlarged
    "text.color": COLOURS["ink"],
    "text.parse_math": False,  # a name may hold a $
    "xtick.color": COLOURS["muted"],
    "xtick.labelcolor": COLOURS["ink"],
    "xtick.labelsize": 9,
    "ytick.color": COLOURS["muted"],
    "ytick.labelcolor": COLOURS["ink"],
    "ytick.labelsize": 9,
}


def draw(
    panels: Sequence[Draw], *, width_in: float, panel_in: float, title: str = "", salt: str = ""
) -> bytes:
    """Return a picture of panels below each other as SVG; the same each time.

    `salt` tells the names inside this picture from those in others on the same page.
    """
    out = io.BytesIO()
    # Without a date, and with names that are drawn from a salt, equal input gives equal output.
    style = mpl.rc_context({**_STYLE, "svg.hashsalt": f"perfsuite {salt}"})
    with style, warnings.catch_warnings():
        # It is the reader's fonts that show the text.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        height_in = panel_in * len(panels) + (0.4 if title else 0.0)
        figure = Figure(figsize=(width_in, height_in), layout="constrained")
        FigureCanvasSVG(figure)
        if title:
            figure.suptitle(title, fontsize=10)
        axes = figure.subplots(len(panels), squeeze=False)[:, 0]
        for panel, at in zip(panels, axes, strict=True):
            panel(at)
        figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()


def inline(svg: bytes, *, label: str) -> str:
    """Return a picture as an element of a page, with `label` as its text alternative."""
    text = svg.decode("utf-8")
    text = text[text.index("<svg") :]
    text = re.sub(r" <metadata>.*?</metadata>\n", "", text, flags=re.DOTALL)
    # What nothing refers to needs no name, and every picture on the page would repeat it.
    wanted = set(re.findall(r'(?:url\(|href=")#([^")]+)', text))
    text = re.sub(r' id="([^"]*)"', lambda name: name[0] if name[1] in wanted else "", text)
    text = re.sub(r'(<svg [^>]*?)width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg [^>]*?)height="[^"]*"', r"\1", text, count=1)
    for name, colour in COLOURS.items():
        text = text.replace(colour, f"var(--{name})")
    return text.replace("<svg ", f'<svg role="img" aria-label="{escape(label)}" ', 1)
