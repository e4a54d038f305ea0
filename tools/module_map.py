"""Write the list of modules: ``python tools/module_map.py docs/architecture.md``.

Each module is told by the first line of its docstring.
"""

import ast
import sys
from pathlib import Path

from figures import replace

PACKAGE = Path(__file__).parent.parent / "perfsuite"
BEGIN, END = "<!-- modules: begin -->", "<!-- modules: end -->"


def module_map() -> str:
    """Return a line of Markdown for each module, by package, with a link to its file."""
    lines: list[str] = []
    for path in sorted(PACKAGE.rglob("*.py"), key=lambda path: (path.parent, path.name)):
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        said = " ".join(text.split("\n\n")[0].split())
        place = path.relative_to(PACKAGE)
        if path.name == "__init__.py":
            if path.parent != PACKAGE:
                lines += ["", f"**{'.'.join(place.parent.parts)}**: {said}", ""]
            continue
        lines.append(f"- [{path.stem}](../perfsuite/{place.as_posix()}): {said}")
    return "\n".join(lines).strip()


def main(arguments: list[str]) -> int:
    """Write the map into a page."""
    page = Path(arguments[0])
    text = page.read_text(encoding="utf-8")
    page.write_text(
        replace(text, f"{BEGIN}\n{module_map()}\n{END}", begin=BEGIN, end=END), encoding="utf-8"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
