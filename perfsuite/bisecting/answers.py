"""What a bisection found, in words, as figures, and as a picture."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from perfsuite.bisecting.rows import Row
from perfsuite.bisecting.searching import Finding
from perfsuite.judging.change_search import FoundChange
from perfsuite.judging.counts import PLACES
from perfsuite.judging.estimates import Estimate
from perfsuite.records.files import replace_all
from perfsuite.records.wording import counted, short_name

MARKDOWN, FIGURES = "bisect.md", "bisect.json"


def answer_lines(finding: Finding, row: Row) -> list[str]:
    """Return what was found of a benchmark, a line each."""
    lines = [f"{short_name(finding.key)} {finding.figure}".rstrip()]
    if finding.ends is not None:
        lines[0] += f": {_told(finding.ends)} between both ends"
    left_out = len(row.steps) - len(finding.steps)
    if left_out:
        what = counted(left_out, row.noun)
        verb = "touches" if left_out == 1 else "touch"
        lines.append(f"  {what} of {len(row.steps)} {verb} nothing that it imports")
    for first, last, changed in finding.counted:
        lines.append(f"  counts change at {_place(first, last, row, finding.steps)}")
        lines += [f"    {line}" for line in changed[:PLACES]]
        more = len(changed) - PLACES
        lines += [f"    and {more} more"] * (more > 0)
        lines += [] if finding.figure else _inside(first, last, row, finding)
    for first, last, told in finding.kinds:
        lines.append(f"  {told} at {_place(first, last, row, finding.steps)}")
        lines += _inside(first, last, row, finding)
    if not finding.figure and not finding.counted and not finding.open:
        lines.append("  both ends count the same")
    if finding.answer is not None:
        lines += _of_figure(finding, row)
    lines += [f"  {note}" for note in finding.notes]
    lines += [f"  no answer: {finding.open}"] * bool(finding.open)
    if finding.rounds:
        effort = f"{counted(finding.comparisons, 'comparison')} in {finding.rounds} rounds"
        lines.append(f"  {effort}, {finding.took_s:.0f} s")
    return lines


def _of_figure(finding: Finding, row: Row) -> list[str]:
    answer = finding.answer
    assert answer is not None
    if not answer.changes:
        return [f"  no change beyond the margin ({answer.probability:.1%})"] * answer.decided
    lines = []
    for change in answer.changes:
        first, last = (finding.steps[place - 1] for place in (change.first, change.last))
        share = _share(change.ratio, finding.ends)
        lines.append(
            f"  {_told(change.ratio)} at {_place(first, last, row, finding.steps)}"
            f" ({change.probability:.1%}){share}"
        )
        lines += _inside(first, last, row, finding)
    return lines


def _inside(first: int, last: int, row: Row, finding: Finding) -> list[str]:
    """Return what to do next about a change, if anything."""
    advice = row.advice(first, finding.key, finding.figure) if first == last else None
    return [f"    {advice}"] * (advice is not None)


def _place(first: int, last: int, row: Row, steps: Sequence[int]) -> str:
    if first == last:
        return row.steps[first - 1]
    inside = [step for step in steps if first <= step <= last]
    ends = f"{row.steps[first - 1]!r} to {row.steps[last - 1]!r}"
    return f"one of {len(inside)} {row.noun}s, {ends}"


def _share(change: Estimate, whole: Estimate | None) -> str:
    """Return how much of the difference between the ends a change accounts for, if there is one."""
    if whole is None or whole.unknown or whole.low <= 1 <= whole.high:
        return ""
    return f", {math.log(change.value) / math.log(whole.value):.0%} of the difference"


def _told(ratio: Estimate) -> str:
    if ratio.unknown:
        return f"unknown ({ratio.unknown})"
    return f"{ratio.value:.3f}x [{ratio.low:.3f}, {ratio.high:.3f}]"


def write_answers(findings: Sequence[Finding], row: Row, folder: Path) -> list[Path]:
    """Write what was found as Markdown and JSON, and a picture of each figure's path.

    What an earlier bisection wrote there is replaced.
    """
    from perfsuite.report.panels import draw_path  # late: matplotlib takes a second

    files: dict[Path, bytes] = {}
    text = ["# Bisection", "", *(f"    {line}" for line in row.header()), ""]
    for number, finding in enumerate(findings, start=1):
        lines = answer_lines(finding, row)
        text += [f"## {short_name(finding.key)}", "", *(f"    {line}" for line in lines), ""]
        if not finding.levels:
            continue
        picture = folder / f"bisect-{number}.svg"
        found = finding.answer.changes if finding.answer is not None else ()
        changes = [_span(each, finding) for each in found]
        title = f"{short_name(finding.key)} {finding.figure}"
        files[picture] = draw_path(finding.levels, changes, title=title, steps=f"{row.noun}s")
        text += [f"![The figure along the {row.noun}s]({picture.name})", ""]
    files[folder / MARKDOWN] = "\n".join(text).encode()
    figures: dict[str, Any] = {"steps": row.steps, "findings": findings}
    files[folder / FIGURES] = msgspec.json.format(msgspec.json.encode(figures), indent=1) + b"\n"
    folder.mkdir(parents=True, exist_ok=True)
    replace_all(files)
    return list(files)


def _span(change: FoundChange, finding: Finding) -> tuple[int, int, str]:
    first, last = (finding.steps[place - 1] for place in (change.first, change.last))
    return first, last, f"{change.ratio.value:.3f}x"
