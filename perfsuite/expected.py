"""Benchmarks that the baseline has and the suite no longer has: items that fail.

Added before pytest deselects, under the names that they had, so that -k, -m and --deselect
treat them as they would have treated the benchmarks.
"""

from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path
from typing import NoReturn

import pytest

__all__ = ["Removed", "removed_benchmarks"]


class Removed(pytest.Item):
    """A benchmark that is in the baseline and was not collected."""

    key: str
    # pytest-benchmark takes an item for a benchmark by this, for --benchmark-only.
    fixturenames = ("benchmark",)

    def runtest(self) -> NoReturn:
        """Fail: what is not there was not compared."""
        pytest.fail(
            f"FAIL compare: {self.key} is in the baseline and was not found (removed, renamed,"
            " or its file was not collected); bring it back, or promote runs without it",
            pytrace=False,
        )

    def reportinfo(self) -> tuple[Path, None, str]:
        """Return where the benchmark was."""
        return self.path, None, self.name


def removed_benchmarks(
    session: pytest.Session, suite: Path, keys: Iterable[str]
) -> list[pytest.Item]:
    """Return an item for each key that the session was asked for by its arguments."""
    if session.config.getoption("lf", False):
        return []  # pytest leaves whole files uncollected then
    items: list[pytest.Item] = []
    for key in sorted(keys):
        file, _, name = key.partition("::")
        path = suite / file
        if _asked_for(session.config, path, name):
            parent = pytest.File.from_parent(session, path=path)
            item = Removed.from_parent(parent, name=name)
            item.key = key
            items.append(item)
    return items


def _asked_for(config: pytest.Config, path: Path, name: str) -> bool:
    start = config.invocation_params.dir
    ignored = [start / folder for folder in config.getoption("ignore") or ()]
    if any(folder == path or folder in path.parents for folder in ignored):
        return False
    if any(fnmatch(str(path), str(start / glob)) for glob in config.getoption("ignore_glob") or ()):
        return False
    for argument in config.args:
        place, _, wanted = argument.partition("::")
        folder = (start / place).resolve()
        covers = folder == path or folder in path.parents
        # A node id stands for all its parameters.
        if covers and (not wanted or name == wanted or name.startswith((f"{wanted}[", f"{wanted}::"))):
            return True
    return False
