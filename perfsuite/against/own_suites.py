"""Where each side has a suite of its own: whether the code it measures is installed elsewhere."""

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from perfsuite.records.git import git


def installed_instead(loaded: Mapping[str, list[str]], top: Path, suite: Path) -> str | None:
    """Return which packages of the tree `top` a worker imported from where they are installed.

    They are looked for where nothing but its suite came from a tree, by `Trees.loaded`: the suite
    alone would pass for the project's code, and both sides would run what is installed.
    """
    inside = os.path.relpath(suite, top)
    files = [Path(file) for file in loaded.get("files", ())]
    if not all(file.is_relative_to(inside) or file.name == "conftest.py" for file in files):
        return None
    strays = _sources(loaded["neither"], top, inside)
    return f"{', '.join(strays)}: imported from where it is installed" if strays else None


def _sources(packages: Iterable[str], top: Path, suite: str) -> list[str]:
    """Return the files with which packages of these names begin, wherever in the tree they lie."""
    wanted = {*packages} - sys.stdlib_module_names
    files = [Path(file) for file in git(top, "ls-files", "-z", "--", "*.py").split("\0") if file]
    begun = {file.parent for file in files if file.name == "__init__.py"}
    return [
        file.as_posix()
        for file in files
        for package in [file.parent if file.name == "__init__.py" else file]
        if package.stem in wanted
        and package.parent not in begun
        and not package.is_relative_to(suite)
    ]
