"""Reading a report as a browser would, and runs to report on."""

import copy
import json
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from perfsuite.__main__ import main

ROOT = Path(__file__).parent.parent
(PUBLISHED,) = (ROOT / "docs" / "runs").glob("cpu-*.json")


def published() -> dict[str, Any]:
    """Return the published run, to be changed at will."""
    document: dict[str, Any] = json.loads(PUBLISHED.read_text(encoding="utf-8"))
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


def report(folder: Path, *documents: dict[str, Any]) -> "Read":
    """Return the report of the last of these runs."""
    out = folder / "report"
    runs = written(folder, *documents)
    assert main(["report", *map(str, reversed(runs)), "-o", str(out)]) == 0
    return read(out)


@dataclass
class Figure:
    """A figure of a page.

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

    def row(self, name: str) -> list[str | float]:
        """Return the row that begins with `name`, without it."""
        (found,) = [row for row in self.rows if row and row[0] == name]
        return found[1:]


class Page(HTMLParser):
    """A page, read into figures, the rows of verdicts, and all ids."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.figures: list[Figure] = []
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
            self.figures.append(Figure(section=self._section))
        elif tag == "table":
            self._table = given.get("class") or "figures"
        elif tag == "tr" and self._table == "verdicts":
            self.verdicts.append([])
        elif tag == "tr" and "figure" in self._path:
            self.figures[-1].rows.append([])
        elif tag == "td" and self._table == "verdicts":
            self.verdicts[-1].append("")
        elif tag == "td" and "figure" in self._path:
            self.figures[-1].rows[-1].append("")
        elif tag == "svg":
            assert given["role"] == "img"
            self.figures[-1].label = given["aria-label"] or ""
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
            self.figures[-1].title += data
        elif self._path[-1:] == ["text"]:
            self.figures[-1].texts.append(data.strip())
        elif "data" in self._path:
            assert self._value is not None
            self.figures[-1].rows[-1][-1] = self._value
            self.figures[-1].shown.append((data, self._value))
        elif "td" in self._path and self._table == "verdicts":
            self.verdicts[-1][-1] += data
        elif "td" in self._path and "figure" in self._path:
            self.figures[-1].rows[-1][-1] = data


@dataclass
class Read:
    """A report that was read."""

    html: str
    markdown: str
    page: Page

    def figures(self, section: str) -> dict[str, Figure]:
        """Return the figures under a heading, by title."""
        return {each.title: each for each in self.page.figures if each.section == section}


def read(folder: Path) -> Read:
    """Return the report in a folder."""
    html = (folder / "report.html").read_text(encoding="utf-8")
    markdown = (folder / "report.md").read_text(encoding="utf-8")
    return Read(html=html, markdown=markdown, page=Page(html))
