"""The table of examples is what the command writes, and no glue is longer than promised."""

from pathlib import Path

import glue_lines
import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "examples" / "README.md"
GLUE = sorted(ROOT.glob("examples/*/benchmarks/conftest.py"))


def test_the_table_is_what_the_command_writes() -> None:
    assert glue_lines.table(PAGE.parent) in PAGE.read_text(encoding="utf-8"), (
        "run `python tools/glue_lines.py examples/README.md`"
    )


@pytest.mark.parametrize("path", GLUE, ids=lambda path: path.parts[-3])
def test_glue_is_at_most_25_lines_of_code(path: Path) -> None:
    assert 0 < glue_lines.lines_of_code(path.read_text(encoding="utf-8")) <= 25


def test_lines_without_code_are_not_counted() -> None:
    text = '"""Says\n\nwhat."""\n\n# why\nx = (\n    1,\n)\n\n'
    text += 'def f():\n    """Say."""\n    return x\n'
    assert glue_lines.lines_of_code(text) == 5
    assert glue_lines.lines_of_code("") == 0
