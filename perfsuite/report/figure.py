"""An exhibit: a picture, with its figures as a table."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes

from perfsuite.records.wording import quantity
from perfsuite.report import panels
from perfsuite.report.svg import Draw, draw, inline

_WIDTH_IN = 4.6  # as wide as a phone shows without making letters small
_ROW_IN, _AROUND_IN = 0.26, 0.75


@dataclass(frozen=True, slots=True)
class Number:
    """A figure as it stands in the run, and how it is shown."""

    value: float
    unit: str = ""

    def __str__(self) -> str:
        if not self.unit and float(self.value).is_integer():
            return f"{self.value:.0f}"
        return quantity(self.value, self.unit)


Cell = str | Number


@dataclass(frozen=True, slots=True, kw_only=True)
class Exhibit:
    """A picture and what it was drawn from.

    Attributes:
        title: what it shows.
        caption: how to read it.
        svg: an element of a page, with a text alternative.
        head: names of the table's columns.
        rows: the table.
    """

    title: str
    caption: str
    svg: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


def exhibit(
    panel: Draw,
    *,
    title: str,
    caption: str,
    head: Sequence[str],
    rows: Iterable[Sequence[Cell]],
    height_in: float = 2.5,
) -> Exhibit:
    """Draw a panel, and return it with its table.

    Args:
        panel: draws it.
        title: what it shows.
        caption: how to read it.
        head: names of the table's columns.
        rows: the table.
        height_in: of the panel.
    """
    cells = tuple(tuple(row) for row in rows)
    svg = draw([panel], width_in=_WIDTH_IN, panel_in=height_in, salt=f"{title} {caption} {cells}")
    return Exhibit(
        title=title,
        caption=caption,
        svg=inline(svg, label=f"{title}. {caption} The table sums it up."),
        head=tuple(head),
        rows=cells,
    )


def rows_in(rows: int) -> float:
    """Return the height in inches of a panel with so many rows."""
    return _AROUND_IN + _ROW_IN * rows


def bars(
    quantities: Mapping[str, Sequence[float | None]],
    kinds: Sequence[str],
    *,
    unit: str,
    title: str,
    caption: str,
    head: Sequence[str],
    rows: Iterable[Sequence[Cell]],
) -> Exhibit:
    """Draw quantities as bars; see `panels.bars` and `exhibit`.

    Args:
        quantities: by name, a value for each kind.
        kinds: what the bars of a name are.
        unit: of the values.
        title: what it shows.
        caption: how to read it.
        head: names of the table's columns.
        rows: the table.
    """

    def panel(axes: Axes) -> None:
        panels.bars(axes, quantities, kinds)
        axes.set_xlabel(unit)

    height_in = rows_in(len(quantities) * len(kinds))
    return exhibit(panel, title=title, caption=caption, head=head, rows=rows, height_in=height_in)
