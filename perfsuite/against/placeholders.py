"""Stand-ins: items and collectors in the place of benchmarks that other processes run.

They have the names that the benchmarks have, so that node ids, -k, -m and reports work as they
do for any other test, though no benchmark is ever imported.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True, slots=True, kw_only=True)
class Offered:
    """A benchmark that a server has collected.

    Attributes:
        key: its key.
        markers: names of its markers.
    """

    key: str
    markers: tuple[str, ...]


class StandIn(pytest.Item):
    """Stands for a benchmark; to run it is to call `run` with its key."""

    key: str
    run: Callable[["StandIn"], None]
    # pytest-benchmark takes an item for a benchmark by this, for --benchmark-only.
    fixturenames = ("benchmark",)

    def runtest(self) -> None:
        """Run it, elsewhere."""
        self.run(self)

    def reportinfo(self) -> tuple[Path, None, str]:
        """Return where the benchmark is."""
        return self.path, None, self.name


class _Group(pytest.Collector):
    """What there is of a file or a class, by name."""

    members: Mapping[str, Offered] = {}
    run: Callable[[StandIn], None]
    error: str | None = None

    def collect(self) -> Iterable[pytest.Item | pytest.Collector]:
        """Return its benchmarks, and its classes.

        Raises:
            CollectError: it could not be imported.
        """
        if self.error is not None:
            raise self.CollectError(self.error)
        nested: dict[str, dict[str, Offered]] = {}
        for name, offered in self.members.items():
            head, _, rest = name.partition("::")
            if rest:
                nested.setdefault(head, {})[rest] = offered
                continue
            item: StandIn = StandIn.from_parent(self, name=name)
            item.key, item.run = offered.key, self.run
            for marker in offered.markers:
                # It may be registered in a conftest.py, which only the sides load.
                self.config.addinivalue_line("markers", marker)
                item.add_marker(marker)
            yield item
        for name, members in nested.items():
            group: _Group = _Group.from_parent(self, name=name)
            group.members, group.run = members, self.run
            yield group


class _File(_Group, pytest.File):
    """The file of some benchmarks."""


def stand_in_for_file(
    parent: pytest.Collector,
    path: Path,
    members: Mapping[str, Offered],
    run: Callable[[StandIn], None],
    error: str | None,
) -> pytest.File:
    """Return a collector of stand-ins.

    Args:
        parent: pytest's.
        path: of the file.
        members: what is in it, by the name that follows the file's in a node id.
        run: called with an item that is to run.
        error: why the file could not be collected, None if it could.
    """
    file: _File = _File.from_parent(parent, path=path)
    file.members, file.run, file.error = members, run, error
    return file
