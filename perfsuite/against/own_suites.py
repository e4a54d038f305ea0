"""Where each side has a suite of its own: whether the code it measures is installed elsewhere."""

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from perfsuite.against.import_paths import ROOTS
from perfsuite.records.git import git

_BUILT_BY = ("pyproject.toml", "setup.cfg", "setup.py")


def installed_instead(loaded: Mapping[str, list[str]], top: Path, suite: Path) -> str | None:
    """Return which packages of the tree `top` a worker imported from where they are installed.

    They are looked for where nothing but its suite came from a tree, by `Trees.loaded`: the suite
    alone would pass for the project's code, and both sides would run what is installed.
    """
    inside = Path(os.path.relpath(suite, top))
    files = [Path(file) for file in loaded.get("files", ())]
    for file in files:
        of_suite = file.is_relative_to(inside) or file.name == "conftest.py"
        around_it = file.name == "__init__.py" and inside.is_relative_to(file.parent)
        if not (of_suite or around_it):
            return None
    strays = _sources(loaded["neither"], top, inside)
    return f"{', '.join(strays)}: imported from where it is installed" if strays else None


def _sources(packages: Iterable[str], top: Path, suite: Path) -> list[str]:
    """Return the files with which packages of these names begin that the tree builds itself."""
    wanted = {*packages} - sys.stdlib_module_names
    told = git(top, "ls-files", "-z", "--", "*.py", *(f"*{name}" for name in _BUILT_BY))
    files = [Path(file) for file in told.split("\0") if file]
    begun = {file.parent for file in files if file.name == "__init__.py"}
    builds = [file for file in files if file.name in _BUILT_BY]
    return [
        file.as_posix()
        for file in files
        for package in [file.parent if file.name == "__init__.py" else file]
        if package.stem in wanted
        and package.parent not in begun
        and not package.is_relative_to(suite)
        and any(_is_built(package, by, top) for by in builds)
    ]


def _is_built(package: Path, by: Path, top: Path) -> bool:
    """Tell whether a file that builds packages has this one: a copy of a library is not built."""
    if not package.is_relative_to(by.parent):
        return False
    place = package.parent.relative_to(by.parent).as_posix()
    if place in (".", *ROOTS):
        return True
    return (top / by).is_file() and place in (top / by).read_text(
        encoding="utf-8", errors="replace"
    )
