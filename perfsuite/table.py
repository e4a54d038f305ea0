"""The table of verdicts that ends a session."""

from collections.abc import Iterable, Sequence

from perfsuite.gates import Outcome, Verdict

__all__ = ["verdict_table"]

_RANK = {
    Outcome.FAIL: 0,
    Outcome.INCONCLUSIVE: 1,
    Outcome.NOT_GATED: 2,
    Outcome.PASS: 3,
}


def verdict_table(
    verdicts: Iterable[tuple[str, Verdict]], *, width: int = 80
) -> list[tuple[Outcome, str]]:
    """Return the lines of a table of (benchmark, verdict), the worst first.

    No line is cut: a row too long for `width` goes on, indented, on the next.
    """
    rows = sorted(verdicts, key=lambda row: _RANK[row[1].outcome])
    columns = [
        (verdict.outcome.value, _short(name), verdict.gate, verdict.figure) for name, verdict in rows
    ]
    widths = _widths(columns)
    lines = []
    for (_, verdict), cells in zip(rows, columns, strict=True):
        cell_line = "  ".join(f"{cell:<{w}}" for cell, w in zip(cells, widths, strict=True))
        tail = verdict.threshold + (f" ({verdict.reason})" if verdict.reason else "")
        line = f"{cell_line}  {tail}"
        if len(line) > width:
            line = f"{cell_line.rstrip()}\n{' ' * (widths[0] + 2)}{tail}"
        lines.append((verdict.outcome, line))
    return lines


def _short(key: str) -> str:
    """Return the benchmark's name without its file and without the prefix all share."""
    return key.rpartition("::")[2].removeprefix("test_")


def _widths(rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*rows, strict=True)]
