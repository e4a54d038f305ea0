"""A chart: a picture, with its figures as a table."""

from collections.abc import Sequence
from dataclasses import dataclass

from perfsuite.records.wording import quantity
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
class Chart:
    """A picture and the table of its figures."""

    panel: Draw  # draws the picture
    title: str
    caption: str  # how to read it
    head: Sequence[str]  # names of the table's columns
    rows: Sequence[Sequence[Cell]]  # the table
    height_in: float = 2.5

    def svg(self) -> str:
        """Draw the picture as an element of a page, with a text alternative."""
        salt = f"{self.title} {self.caption} {self.rows}"
        svg = draw([self.panel], width_in=_WIDTH_IN, panel_in=self.height_in, salt=salt)
        label = f"{self.title}. {self.caption} The table below has the figures."
        return inline(svg, label=label)


def height_of_rows_in(rows: int) -> float:
    """Return the height in inches of a panel with so many rows."""
    return _AROUND_IN + _ROW_IN * rows
