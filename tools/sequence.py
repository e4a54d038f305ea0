"""Draws a Mermaid sequence diagram as SVG, for pages that load no script to do it.

Of Mermaid's language it knows what docs/architecture.md uses: participants, messages and loops.
"""

import re
from html import escape

COLUMN, ROW, TOP = 150, 26, 56  # pixels
_PARTICIPANT = re.compile(r"participant (\w+) as (.+)")
_MESSAGE = re.compile(r"(\w+)(--?)>>(\w+): (.+)")


def draw(text: str) -> str:
    """Return the diagram as one line of SVG, in the colour of the text around it.

    Raises:
        ValueError: a line is none that it knows.
    """
    lines = [line.strip() for line in text.strip().splitlines()]
    columns: dict[str, int] = {}
    drawn: list[str] = []
    loops: list[tuple[int, str]] = []
    at = TOP
    for line in lines[1:]:
        if found := _PARTICIPANT.fullmatch(line):
            name, title = found.groups()
            columns[name] = COLUMN // 2 + COLUMN * len(columns)
            drawn += _lines(columns[name], 14, title.split("<br/>"))
            continue
        at += ROW
        if found := _MESSAGE.fullmatch(line):
            sender, dashes, receiver, said = found.groups()
            drawn += _message(columns[sender], columns[receiver], at, said, dashed=dashes == "--")
        elif line.startswith("loop "):
            loops.append((at - ROW // 2, line))
        elif line == "end" and loops:
            start, title = loops.pop()
            inset = 4 + 6 * len(loops)
            width = COLUMN * len(columns) - 2 * inset
            drawn.append(
                f'<rect x="{inset}" y="{start}" width="{width}" height="{at - start - 8}" rx="4"'
                f' fill="none" stroke="currentColor" stroke-opacity=".4"/>'
            )
            drawn.append(_text(inset + 6, start + 13, title, anchor="start", weight="bold"))
        else:
            raise ValueError(f"not drawn: {line}")
    lives = [
        f'<path d="M{x} {TOP - 10}V{at}" stroke="currentColor" stroke-opacity=".3"/>'
        for x in columns.values()
    ]
    size = f"{COLUMN * len(columns)} {at + ROW}"
    head = f'<svg viewBox="0 0 {size}" role="img" aria-label="sequence diagram" font-size="11"'
    return f'{head} font-family="sans-serif">{"".join([*lives, *drawn])}</svg>'


def _lines(x: int, y: int, titles: list[str]) -> list[str]:
    return [_text(x, y + 14 * index, each, weight="bold") for index, each in enumerate(titles)]


def _message(x: int, to: int, y: int, said: str, *, dashed: bool) -> list[str]:
    dash = ' stroke-dasharray="4 3"' if dashed else ""
    if x == to:  # what a process does by itself
        return [_text(x + 6, y, said, anchor="start")]
    tip = -5 if to > x else 5
    path = f"M{x} {y}H{to}m{tip} -4L{to} {y}l{tip} 4"
    line = f'<path d="{path}" fill="none" stroke="currentColor"{dash}/>'
    return [line, _text((x + to) // 2, y - 4, said)]


def _text(x: int, y: int, said: str, *, anchor: str = "middle", weight: str = "normal") -> str:
    about = f'x="{x}" y="{y}" text-anchor="{anchor}" font-weight="{weight}" fill="currentColor"'
    return f"<text {about}>{escape(said)}</text>"
