"""What ends a session: what was shown, and the table of verdicts."""

from collections import Counter
from collections.abc import Iterable, Sequence

import pytest

from perfsuite.judging.gates import Outcome, Verdict
from perfsuite.records.schema import gate_name

_COLOURS = {
    Outcome.PASS: {"green": True},
    Outcome.FAIL: {"red": True, "bold": True},
    Outcome.INCONCLUSIVE: {"yellow": True, "bold": True},
    Outcome.NOT_GATED: {"light": True},
}


def write_summary(
    reporter: pytest.TerminalReporter,
    lines: Sequence[str],
    pages: Sequence[str],
    rows: Sequence[tuple[str, Verdict]],
    saved: Sequence[str],
) -> None:
    """Write the section that ends a session.

    Args:
        reporter: pytest's.
        lines: what was measured on, and against.
        pages: what benchmarks had to show.
        rows: (benchmark, verdict).
        saved: where the run was saved.
    """
    reporter.section("perfsuite")
    for line in lines:
        reporter.write_line(line)
    for page in pages:
        reporter.write_line(f"\n{page}")
    reporter.write_line("")
    for outcome, line in verdict_table(rows, width=reporter.config.get_terminal_writer().fullwidth):
        reporter.write_line(line, **_COLOURS[outcome])
    order = list(Outcome)
    counts = Counter(
        verdict.shown for _, verdict in sorted(rows, key=lambda row: order.index(row[1].outcome))
    )
    tally = ", ".join(f"{count} {word}" for word, count in counts.items())
    reporter.write_line(tally or "no gate was evaluated")
    for line in saved:
        reporter.write_line(line)


def verdict_table(
    verdicts: Iterable[tuple[str, Verdict]], *, width: int = 80
) -> list[tuple[Outcome, str]]:
    """Return the lines of a table of (benchmark, verdict), the worst first.

    No line is cut: what does not fit in `width` goes on, indented, on the next.
    """
    rows = sorted(verdicts, key=lambda row: row[1].outcome.rank)
    columns = [(v.shown, gate_name(key, v.gate), v.figure) for key, v in rows]
    widths = [max(map(len, column)) for column in zip(*columns, strict=True)]
    lines = []
    for (_, verdict), cells in zip(rows, columns, strict=True):
        row = "  ".join(f"{cell:<{w}}" for cell, w in zip(cells, widths, strict=True))
        further = "\n" + " " * (widths[0] + 2)
        line = f"{row}  {verdict.threshold}"
        if len(line) > width:
            line = f"{row.rstrip()}{further}{verdict.threshold}"
        if verdict.reason:
            line += further + verdict.reason
        lines.append((verdict.outcome, line))
    return lines
