"""Placeholders: items and collectors in the place of benchmarks that other processes run.

They have the names that the benchmarks have, so that node ids, -k, -m and reports work as they
do for any other test, though no benchmark is ever imported.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import pytest


class Placeholder(pytest.Item):
    """Stands for the benchmark `key`; to run it is to call `run` with this item."""

    key: str
    run: Callable[["Placeholder"], None]
    # pytest-benchmark takes an item for a benchmark by this, for --benchmark-only.
    fixturenames = ("benchmark",)

    def runtest(self) -> None:
        self.run(self)

    def reportinfo(self) -> tuple[Path, None, str]:
        return self.path, None, self.name


class _Group(pytest.Collector):
    """A file or a class; for its attributes see `placeholder_file`."""

    key: str
    members: Mapping[str, Sequence[str]]
    run: Callable[[Placeholder], None]
    error: str | None = None

    def collect(self) -> Iterable[pytest.Item | pytest.Collector]:
        if self.error is not None:
            raise self.CollectError(self.error)
        classes: dict[str, dict[str, Sequence[str]]] = {}
        for name, markers in self.members.items():
            head, _, rest = name.partition("::")
            if rest:
                classes.setdefault(head, {})[rest] = markers
                continue
            item: Placeholder = Placeholder.from_parent(self, name=name)
            item.key, item.run = f"{self.key}::{name}", self.run
            for marker in markers:
                # It may be registered in a conftest.py, which only the sides load.
                self.config.addinivalue_line("markers", marker)
                item.add_marker(marker)
            yield item
        for name, members in classes.items():
            group: _Group = _Group.from_parent(self, name=name)
            group.key, group.members, group.run = f"{self.key}::{name}", members, self.run
            yield group


class _File(_Group, pytest.File):
    """The file of some benchmarks."""


def placeholders_of(
    parent: pytest.Collector,
    path: Path,
    *,
    suite: Path,
    items: Mapping[str, Sequence[str]],
    why_not: Callable[[str], str | None],
    run: Callable[[Placeholder], None],
) -> pytest.File | None:
    """Return what stands for a file of the suite: those of `items` that are in it, or its error.

    None for a file of no suite; `why_not` says why one of the suite was not collected.
    """
    if not path.resolve().is_relative_to(suite):
        return None
    file = path.resolve().relative_to(suite).as_posix()
    start = f"{file}::"
    members = {key.removeprefix(start): items[key] for key in items if key.startswith(start)}
    error = None if members else why_not(file)
    return placeholder_file(parent, path, key=file, members=members, run=run, error=error)


def placeholder_file(
    parent: pytest.Collector,
    path: Path,
    *,
    key: str,
    members: Mapping[str, Sequence[str]],
    run: Callable[[Placeholder], None],
    error: str | None = None,
) -> pytest.File:
    """Return a collector of placeholders, or of the `error` for which there are none.

    `members` has the names of each benchmark's markers, by what follows `key` and "::".
    """
    file: _File = _File.from_parent(parent, path=path)
    file.key, file.members, file.run, file.error = key, members, run, error
    return file
