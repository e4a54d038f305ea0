"""Write the table of examples: ``python tools/glue_lines.py examples/README.md``.

Glue is what a project writes for perfsuite: the lines of code of its benchmarks/conftest.py,
without blank ones, comments and docstrings.
"""

import ast
import io
import sys
import tokenize
import tomllib
from pathlib import Path

from figures import replace

BEGIN, END = "<!-- glue: begin -->", "<!-- glue: end -->"
_NO_CODE = {
    *(tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE),
    *(tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER),
}


def lines_of_code(text: str) -> int:
    """Return how many lines of a module hold code."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in _NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef) and ast.get_docstring(
            node
        ):
            said = node.body[0]
            lines -= set(range(said.lineno, (said.end_lineno or said.lineno) + 1))
    return len(lines)


def table(folder: Path) -> str:
    """Return a row of Markdown for each example in a folder."""
    rows = ["| example | what is trained | lines of glue |", "| --- | --- | --- |"]
    for path in sorted(folder.glob("*/pyproject.toml")):
        about = tomllib.loads(path.read_text(encoding="utf-8"))["project"]["description"]
        name, glue = path.parent.name, path.parent / "benchmarks" / "conftest.py"
        lines = lines_of_code(glue.read_text(encoding="utf-8"))
        rows.append(f"| [{name}]({name}) | {about} | [{lines}]({name}/benchmarks/conftest.py) |")
    return "\n".join(rows)


def main(arguments: list[str]) -> int:
    """Write the table into a page, of the examples beside it."""
    page = Path(arguments[0])
    found = f"{BEGIN}\n{table(page.parent)}\n{END}"
    text = replace(page.read_text(encoding="utf-8"), found, begin=BEGIN, end=END)
    page.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
