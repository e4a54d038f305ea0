"""What a session shows on the terminal: its progress, and at its end the table of verdicts."""

import shutil
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from textwrap import wrap

import pytest

from perfsuite.judging.gates import Outcome, Verdict
from perfsuite.records.wording import gate_name

_COLOURS = {
    None: {"bold": True},
    Outcome.PASS: {"green": True},
    Outcome.FAIL: {"red": True, "bold": True},
    Outcome.INCONCLUSIVE: {"yellow": True, "bold": True},
    Outcome.NOT_GATED: {"light": True},
}
_HEADER = ("verdict", "benchmark and gate", "found", "required")
_LEAST_COLUMNS, _COLUMNS = 60, 100  # of the table: at least, and where nothing says how many
_GAP = "  "
_EVERY_S = 0.2
_WORTH_A_WORD_S = 10.0
_SAVE, _RESTORE, _ERASE = "\0337", "\0338", "\033[K"


class StatusLine:
    """Progress behind whatever pytest wrote on the current line, on an interactive terminal."""

    def __init__(self, config: pytest.Config) -> None:
        reporter = config.pluginmanager.get_plugin("terminalreporter")
        self._capture = config.pluginmanager.get_plugin("capturemanager")
        self._interactive = False
        if reporter is not None:
            self._writer = config.get_terminal_writer()
            self._interactive = bool(reporter.isatty and self._writer.hasmarkup)
        self._shown_at_s = -_EVERY_S
        self._shown = False
        self._since = ("", 0, 0.0)  # what is shown, how much of it was done at first, and when

    def show(self, what: str, done: int, of: int) -> None:
        """Show that `done` of `of` parts of `what` are done, and how long the rest may take."""
        now_s = time.monotonic()
        if self._since[0] != what or done < self._since[1]:
            self._since = (what, done, now_s)
        if not self._interactive or (done < of and now_s - self._shown_at_s < _EVERY_S):
            return
        self._shown_at_s, self._shown = now_s, True
        self._draw(f"{what} {done}/{of}{self._left(done, of, now_s)}")

    def _left(self, done: int, of: int, now_s: float) -> str:
        """Return how long the rest takes at the pace so far, where it is worth a word."""
        _, first, since_s = self._since
        if done == first:
            return ""
        left_s = (now_s - since_s) / (done - first) * (of - done)
        if left_s < _WORTH_A_WORD_S:
            return ""
        return f", {left_s:.0f} s left" if left_s < 100 else f", {left_s / 60:.0f} min left"

    def clear(self) -> None:
        """Erase what is shown."""
        if self._shown:
            self._shown = False
            self._draw("")

    def _draw(self, text: str) -> None:
        room = self._writer.fullwidth - self._writer.width_of_current_line - 2
        # Past the writer, which counts what it writes to know where pytest's line stands.
        file = self._writer._file
        with self.uncaptured():
            file.write(f"{_SAVE} {_ERASE}{text[: max(0, room)]}{_RESTORE}")
            file.flush()

    @contextmanager
    def uncaptured(self) -> Iterator[None]:
        """Let what is written reach the terminal, also from within a test."""
        if self._interactive and self._capture is not None:
            with self._capture.global_and_fixture_disabled():
                yield
        else:
            yield


def write_summary(
    reporter: pytest.TerminalReporter,
    header: Sequence[str],
    pages: Sequence[str],
    rows: Sequence[tuple[str, Verdict]],
    saved: Sequence[str],
) -> None:
    """Write the section that ends a session; `rows` are (benchmark, verdict)."""
    reporter.section("perfsuite")
    for line in (*header, *(f"\n{page}" for page in pages), ""):
        reporter.write_line(line)
    width = shutil.get_terminal_size(fallback=(_COLUMNS, 0)).columns
    for outcome, line in verdict_table(rows, width=width):
        reporter.write_line(line, **_COLOURS[outcome])
    order = list(Outcome)
    counts = Counter(
        verdict.shown for _, verdict in sorted(rows, key=lambda row: order.index(row[1].outcome))
    )
    tally = ", ".join(f"{count} {word}" for word, count in counts.items())
    for line in (tally or "no gate was evaluated", *saved):
        reporter.write_line(line)


def verdict_table(
    verdicts: Iterable[tuple[str, Verdict]], *, width: int = _COLUMNS
) -> list[tuple[Outcome | None, str]]:
    """Return header and rows of a table of (benchmark, verdict), the worst first.

    Nothing is cut: what does not fit is wrapped within its column. Reasons are indented on lines of
    their own, or stand in the last column where nothing is required. The table takes
    as many columns as `width` allows, and 60 at least.
    """
    rows = sorted(verdicts, key=lambda row: row[1].outcome.rank)
    if not rows:
        return []
    width = max(width, _LEAST_COLUMNS)
    cells = [
        (v.shown, gate_name(key, v.gate), v.figure, v.required or v.explanation) for key, v in rows
    ]
    widths = _column_widths([_HEADER, *cells], width)
    table: list[tuple[Outcome | None, str]] = [(None, _row(_HEADER, widths))]
    indent = " " * (widths[0] + len(_GAP))
    for (_, verdict), texts in zip(rows, cells, strict=True):
        reason = verdict.reason if verdict.required else ""  # else it is in the last column
        below = wrap(reason, width, initial_indent=indent, subsequent_indent=indent)
        table.append((verdict.outcome, "\n".join([_row(texts, widths), *below])))
    return table


def _column_widths(rows: Sequence[Sequence[str]], width: int) -> list[int]:
    """Return a width for each column: the widest ones shrink until all fit."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    while sum(widths) + len(_GAP) * (len(widths) - 1) > width:
        widths[widths.index(max(widths))] -= 1
    return widths


def _row(texts: Sequence[str], widths: Sequence[int]) -> str:
    wrapped = [wrap(text, width) for text, width in zip(texts, widths, strict=True)]
    return "\n".join(
        _GAP.join(f"{part:<{width}}" for part, width in zip(line, widths, strict=True)).rstrip()
        for line in zip_longest(*wrapped, fillvalue="")
    )
