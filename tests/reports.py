"""Runs to report on, and reading a report: its content, or its page as a browser would."""

import copy
import json
from dataclasses import dataclass, field
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from perfsuite.__main__ import main
from perfsuite.records.schema import read_run
from perfsuite.report.chart import Chart
from perfsuite.report.content import Page, page_of
from perfsuite.report.render import newest_first

ROOT = Path(__file__).parent.parent
PUBLISHED = ROOT / "tests" / "runs" / "of-0.2.0.json"
"""As that release published it: what reads runs has to read the runs that there are, too."""


def published(*names: str) -> dict[str, Any]:
    """Return a published run, to be changed at will; with these benchmarks only, if any."""
    document: dict[str, Any] = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    if names:
        entries = [each for each in document["benchmarks"] if each["name"] in names]
        keys = {each["extra_info"]["perfsuite"]["key"] for each in entries}
        items = {key: said for key, said in document["perfsuite"]["items"].items() if key in keys}
        assert len(items) == len(names)
        document["benchmarks"], document["perfsuite"]["items"] = entries, items
    return document


def record(document: dict[str, Any], name: str) -> dict[str, Any]:
    """Return what the run holds of one benchmark, by the end of its key."""
    records = [entry["extra_info"]["perfsuite"] for entry in document["benchmarks"]]
    (found,) = [each for each in records if each["key"].endswith(f"::{name}")]
    return found  # type: ignore[no-any-return]  # JSON


def written(folder: Path, *documents: dict[str, Any]) -> list[Path]:
    """Write runs, an hour between each and the next; return their paths."""
    paths = []
    for number, document in enumerate(documents):
        each = copy.deepcopy(document)
        each["perfsuite"]["started"] = f"2026-01-01T{number:02}:00:00+00:00"
        path = folder / f"run{number}.json"
        path.write_text(json.dumps(each), encoding="utf-8")
        paths.append(path)
    return paths


def report(folder: Path, *documents: dict[str, Any]) -> "ParsedReport":
    """Return the report of the last of these runs, written and read again."""
    out = folder / "report"
    runs = written(folder, *documents)
    assert main(["report", *map(str, reversed(runs)), "-o", str(out)]) == 0
    return read(out)


def content(folder: Path, *documents: dict[str, Any]) -> "Content":
    """Return what the report of the last of these runs says, of which nothing is drawn."""
    (newest, *past), _ = newest_first(written(folder, *documents))
    return Content(page_of(read_run(newest), past))


@dataclass
class Content:
    """What a report says."""

    page: Page

    def charts(self, section: str) -> dict[str, "ChartContent"]:
        """Return the charts under a heading, by title."""
        charts = [
            each for given in self.page.sections if given.title == section for each in given.charts
        ]
        return {chart.title: ChartContent(chart) for chart in charts}

    def verdicts(self) -> list[list[str]]:
        """Return the first cells of each verdict's row."""
        return [[row.verdict.shown, row.name, row.verdict.figure] for row in self.page.rows]


@dataclass
class ChartContent:
    """A chart that is drawn only if its texts are asked for."""

    chart: Chart

    @property
    def rows(self) -> list[list[str | float]]:
        """The table; numbers as they stand in the run."""
        return [[c if isinstance(c, str) else c.value for c in row] for row in self.chart.rows]

    def row(self, name: str | float) -> list[str | float]:
        """Return the row that begins with `name`, without it."""
        return row_of(self.rows, name)

    def drawn(self) -> "ParsedChart":
        """Draw the picture and read it."""
        page = ParsedPage(f"<figure><h3>{escape(self.chart.title)}</h3>{self.chart.svg()}</figure>")
        return page.charts[0]


@dataclass
class ParsedChart:
    """A chart on a page.

    Attributes:
        section: the heading above it.
        title: its own.
        label: the picture's text alternative.
        texts: in the picture.
        rows: of its table, a cell each; numbers as they stand in `<data value>`.
        shown: the text of each number beside its value.
    """

    section: str
    title: str = ""
    label: str = ""
    texts: list[str] = field(default_factory=list)
    rows: list[list[str | float]] = field(default_factory=list)
    shown: list[tuple[str, float]] = field(default_factory=list)

    def row(self, name: str | float) -> list[str | float]:
        """Return the row that begins with `name`, without it."""
        return row_of(self.rows, name)


def row_of(rows: list[list[str | float]], name: str | float) -> list[str | float]:
    (found,) = [row for row in rows if row and row[0] == name]
    return found[1:]


class ParsedPage(HTMLParser):
    """A page, read into charts, the rows of verdicts, and all ids."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.charts: list[ParsedChart] = []
        self.verdicts: list[list[str]] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.text = ""
        self._path: list[str] = []
        self._section = ""
        self._value: float | None = None
        self._table = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self._path.append(tag)
        self.ids += [given["id"] or ""] if "id" in given else []
        self.references += [v or "" for n, v in attrs if n in {"src", "href", "xlink:href"}]
        if tag == "h2":
            self._section = ""
        elif tag == "figure":
            self.charts.append(ParsedChart(section=self._section))
        elif tag == "table":
            self._table = given.get("class") or "figures"
        elif tag == "tr" and self._table == "verdicts":
            self.verdicts.append([])
        elif tag == "tr" and "figure" in self._path:
            self.charts[-1].rows.append([])
        elif tag == "td" and self._table == "verdicts":
            self.verdicts[-1].append("")
        elif tag == "td" and "figure" in self._path:
            self.charts[-1].rows[-1].append("")
        elif tag == "svg":
            assert given["role"] == "img"
            self.charts[-1].label = given["aria-label"] or ""
        elif tag == "data":
            self._value = float(given["value"] or "")
        if tag in {"meta", "link", "path", "use", "rect", "br"}:
            self._path.pop()

    def handle_endtag(self, tag: str) -> None:
        while tag in self._path and self._path.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        self.text += data
        if "h2" in self._path:
            self._section += data
        elif "h3" in self._path:
            self.charts[-1].title += data
        elif self._path[-1:] == ["text"]:
            self.charts[-1].texts.append(data.strip())
        elif "data" in self._path:
            assert self._value is not None
            self.charts[-1].rows[-1][-1] = self._value
            self.charts[-1].shown.append((data, self._value))
        elif "td" in self._path and self._table == "verdicts":
            self.verdicts[-1][-1] += data
        elif "td" in self._path and "figure" in self._path:
            self.charts[-1].rows[-1][-1] = data


@dataclass
class ParsedReport:
    """A report that was read."""

    html: str
    markdown: str
    page: ParsedPage

    def charts(self, section: str) -> dict[str, ParsedChart]:
        """Return the charts under a heading, by title."""
        return {each.title: each for each in self.page.charts if each.section == section}


def read(folder: Path) -> ParsedReport:
    """Return the report in a folder."""
    html = (folder / "report.html").read_text(encoding="utf-8")
    markdown = (folder / "report.md").read_text(encoding="utf-8")
    return ParsedReport(html=html, markdown=markdown, page=ParsedPage(html))
