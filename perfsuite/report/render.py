"""The report of a run: a page with charts that needs nothing else, and a short one for a log.

Everything on it is read from run files, so that it can be written again at any time.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import jinja2

from perfsuite.records.files import write_new
from perfsuite.records.schema import (
    NOT_OF_ONE_TREE,
    REPORT_FILES,
    Head,
    RunError,
    read_as,
    read_run,
)
from perfsuite.report.content import page_of
from perfsuite.report.svg import COLOURS

_DARK = {
    "paper": "#14181d",
    "ink": "#e3e8ed",
    "muted": "#9aa7b4",
    "rule": "#343c45",
    "first": "#76b2f2",
    "second": "#f2a35e",
    "good": "#63c793",
    "bad": "#ff8a80",
}


def newest_first(paths: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """Return run files of one hardware, the newest first, and which were left out, and why.

    A run that is there twice counts once, and a comparison of two trees is no earlier run.

    Raises:
        RunError: one is not a run, or they are of several hardware.
    """
    heads = {path: read_as(path, Head)[0] for path in paths}
    ordered = sorted(heads, key=lambda path: (heads[path].perfsuite.started, path), reverse=True)
    now = heads[ordered[0]].perfsuite.hardware.key
    kept: dict[tuple[str, str], Path] = {}
    left_out = []
    for path in ordered:
        head = heads[path].perfsuite
        if head.hardware.key != now:
            raise RunError(f"{path}: was measured on {head.hardware.key}, not {now} as the newest")
        run = (head.started, heads[path].commit_info.id)
        if run in kept:
            left_out.append(f"{path}: the same run as {kept[run]}")
        elif kept and head.against is not None:
            left_out.append(f"{path}: {NOT_OF_ONE_TREE}")
        else:
            kept[run] = path
    return list(kept.values()), left_out


def write_report(path: Path, past: Sequence[Path], folder: Path) -> list[Path]:
    """Write the report of a run as REPORT_FILES in a folder; return their paths.

    `past` holds earlier runs of the same hardware, the newest first.

    Raises:
        RunError: a file is not a run, or one of REPORT_FILES exists.
        OSError: it could not be written.
    """
    targets = [folder / name for name in REPORT_FILES]
    for target in targets:
        if target.exists():
            raise RunError(f"{target} exists and is not overwritten")
    page = page_of(read_run(path), past)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("perfsuite.report"),
        autoescape=lambda name: name is not None and name.endswith(".html"),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters["cell"] = _markdown
    texts = [
        environment.get_template(target.name).render(page=page, light=COLOURS, dark=_DARK)
        for target in targets
    ]
    for target, text in zip(targets, texts, strict=True):
        write_new(target, text.encode("utf-8"))
    return targets


def _markdown(text: str) -> str:
    """Return text that cannot leave a table's cell, nor be taken for markup or a mention."""
    for found, escaped in (("&", "&amp;"), ("<", "&lt;"), ("@", "@&#8203;"), ("://", ":&#8203;//")):
        text = text.replace(found, escaped)
    return " ".join(re.sub(r"([\\|*_`\[\]~$#])(?!8203;)", r"\\\1", text).split())
