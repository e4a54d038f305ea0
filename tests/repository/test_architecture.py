"""The architecture lists the modules that there are, and every place that it names exists."""

import re
from pathlib import Path

import module_map
from test_structure import FLOORS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "architecture.md"
TEXT = PAGE.read_text(encoding="utf-8")


def test_the_list_of_modules_is_what_the_command_writes(tmp_path: Path) -> None:
    page = tmp_path / "architecture.md"
    page.write_text(TEXT, encoding="utf-8")
    assert module_map.main([str(page)]) == 0
    assert page.read_text(encoding="utf-8") == TEXT, "run `make map`"


def test_the_packages_are_told_from_the_ground_floor_up() -> None:
    table = TEXT[TEXT.index("| package |") : TEXT.index("Module by module")]
    told = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", table, re.MULTILINE)
    names = [name for cell in told for name in re.findall(r"`(\w+)`", cell)]
    assert names == [name for name in FLOORS if name != "__init__"]


def test_every_file_that_is_named_exists() -> None:
    package = ROOT / "perfsuite"
    named = re.findall(r"`([\w/]+\.(?:py|toml))`", TEXT)
    assert named
    assert [n for n in named if not (ROOT / n).exists() and not (package / n).exists()] == []


def test_every_module_that_is_named_exists() -> None:
    package = ROOT / "perfsuite"
    packages = "|".join(FLOORS[:-3])
    named = re.findall(rf"`((?:{packages})(?:\.[a-z_]+)+)", TEXT)
    named += re.findall(r"<br/>([a-z_.]+)", TEXT)

    def exists(name: str) -> bool:
        path = package.joinpath(*name.split("."))
        # What is behind the module may be a function or a method of it.
        return path.with_suffix(".py").exists() or path.parent.with_suffix(".py").exists()

    assert len(named) > 15
    assert [name for name in named if not exists(name)] == []
