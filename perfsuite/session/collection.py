"""Which benchmarks were collected, and which should have been.

Benchmarks that the baseline has and the suite no longer has become items that fail. They are
added before pytest deselects, under their former names, so that -k, -m and --deselect treat them
as they would have treated the benchmarks.
"""

import importlib.util
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NoReturn

import pytest

from perfsuite.judging.thresholds import FILE_NAME
from perfsuite.session.benchmark_adapter import PytestBenchmark
from perfsuite.session.fixtures import uses

MARKERS_THAT_ACT = frozenset(
    ["benchmark", "filterwarnings", "parametrize", "skip", "skipif", "usefixtures", "xfail"]
)
"""Markers that pytest acts on, and that the item of a removed benchmark must not have."""


def refuse_what_switches_gates_off(
    config: pytest.Config, items: Sequence[pytest.Item], compare: Any
) -> None:
    """Refuse options under which a gate would not be evaluated.

    `items` are all that was collected, `compare` is the value of --benchmark-compare: False
    without it, True if it has none.

    Raises:
        UsageError: there is such an option.
    """
    benchmark = PytestBenchmark(config)
    if benchmark.is_disabled and not benchmark.is_xdist_worker:
        raise pytest.UsageError(
            "--benchmark-disable: perfsuite could not evaluate its gates; drop the option, or"
            " leave the benchmarks out with --benchmark-skip"
        )
    if config.getoption("benchmark_compare_fail"):
        raise pytest.UsageError(
            "--benchmark-compare-fail: perfsuite takes its margins from"
            f" {FILE_NAME}, table [compare]; drop the option"
        )
    if not compare:
        return
    if compare is not True:
        raise pytest.UsageError(
            f"--benchmark-compare={compare}: perfsuite compares with the promoted runs of this"
            " hardware; give the option without a value"
        )
    if benchmark.is_skipped:
        raise pytest.UsageError("--benchmark-skip leaves nothing for --benchmark-compare to judge")
    for item in items:
        names = getattr(item, "fixturenames", ())
        if "benchmark" in names and not uses(item):
            raise pytest.UsageError(
                f"--benchmark-compare: {item.nodeid} does not use the fixture `perf`, so it cannot"
                " be compared with promoted runs; run it in a separate session"
            )


def suite_of(config: pytest.Config, ours: Sequence[pytest.Item]) -> Path | None:
    """Return the folder of the one suite that the benchmarks `ours` belong to.

    Without benchmarks, it is the suite with a baseline that pytest's arguments name: it has lost
    its last benchmark. None if they name none.

    Raises:
        UsageError: they belong to several.
    """
    suites = {suite_of_file(item.path) for item in ours}
    if not ours:
        suites = {home for home in suites_asked_for(config) if (home / "baselines").is_dir()}
    if len(suites) > 1:
        found = ", ".join(sorted(map(str, suites)))
        raise pytest.UsageError(
            f"benchmarks of several suites ({found}): run one suite at a time, or make them one by"
            f" a {FILE_NAME}, which may be empty, in the folder that holds them all"
        )
    return next(iter(suites), None)


def suite_of_file(path: Path) -> Path:
    """Return the folder of a file's suite: the nearest with thresholds.toml, or else its own."""
    return _suite_above(path) or path.parent


def _suite_above(path: Path) -> Path | None:
    return next((folder for folder in path.parents if (folder / FILE_NAME).is_file()), None)


def suites_asked_for(config: pytest.Config) -> set[Path]:
    """Return the folders of the suites that pytest's arguments name, or hold.

    A folder without thresholds.toml, in it, above it or below it, is one if it is named.
    """
    suites: set[Path] = set()
    for place, _ in arguments(config):
        above = _suite_above(place / FILE_NAME)
        found = [above] if above is not None else list(_suites_below(config, place))
        folder = place if place.is_dir() else place.parent
        suites.update(found or [folder] * (folder != config.rootpath))
    return suites


def names_suite(config: pytest.Config) -> bool:
    """Tell whether pytest's arguments name a folder with thresholds, or what is in one."""
    return any(_suite_above(place / FILE_NAME) is not None for place, _ in arguments(config))


def may_hold_suites(config: pytest.Config) -> bool:
    """Tell whether pytest's arguments name, or hold, a folder with thresholds or baselines."""
    return names_suite(config) or any(
        next(_suites_below(config, place), None) is not None for place, _ in arguments(config)
    )


def key_in(suite: Path, item: pytest.Item) -> str:
    """Return a benchmark's key: its file relative to the suite, ``::``, and its name."""
    return f"{item.path.relative_to(suite).as_posix()}::{item.nodeid.partition('::')[2]}"


def _suites_below(config: pytest.Config, folder: Path) -> Iterator[Path]:
    """Yield the suites in a folder, in the subfolders that pytest itself would search."""
    unwanted = config.getini("norecursedirs")
    for home, folders, files in os.walk(folder):
        if FILE_NAME in files or "baselines" in folders:
            yield Path(home)
        if "pyvenv.cfg" in files:
            folders.clear()
        folders[:] = [f for f in folders if not any(fnmatch(f, glob) for glob in unwanted)]


def arguments(config: pytest.Config) -> Iterator[tuple[Path, str]]:
    """Yield the file or folder that each argument of pytest names, and the node id within it."""
    for argument in config.args:
        place, _, node = argument.partition("::")
        path = config.invocation_params.dir / place
        if config.option.pyargs and not path.exists():
            spec = importlib.util.find_spec(place)
            if spec is not None and spec.origin is not None:
                origin = Path(spec.origin)
                path = origin.parent if origin.name == "__init__.py" else origin
        yield path.resolve(), node


class _RemovedFile(pytest.File):
    """The file that a removed benchmark was in; it may no longer exist."""

    def collect(self) -> list[pytest.Item]:
        """Return nothing: removed benchmarks are made here."""
        return []


class Removed(pytest.Item):
    """A benchmark that is in the baseline and was not collected."""

    key: str
    fixturenames = ("benchmark",)  # by which --benchmark-only keeps it

    def runtest(self) -> NoReturn:
        """Fail, since it was not compared."""
        # Late: it imports scipy, and every session with --benchmark-compare imports this module.
        from perfsuite.judging.gates import missing

        what = f"{self.key} is in the baseline and was not collected"
        remedy = (
            "removed, renamed, or in a file left out; restore it, or promote runs without it, and"
            " take it out of ledgers/"
        )
        pytest.fail(str(missing("compare", what, remedy)), pytrace=False)

    def reportinfo(self) -> tuple[Path, None, str]:
        """Return where the benchmark was."""
        return self.path, None, self.name


def removed_benchmarks(
    session: pytest.Session, suite: Path, gone: Mapping[str, Sequence[str]]
) -> list[pytest.Item]:
    """Return an item for each removed benchmark that pytest's arguments would have selected.

    `gone` has their keys and the names of their markers.
    """
    items: list[pytest.Item] = []
    # One that is no longer registered would be an error here, and with -m.
    registered = {re.split(r"[:(]", line)[0].strip() for line in session.config.getini("markers")}
    for key in sorted(gone):
        file, _, name = key.partition("::")
        path = suite / file
        if "when_named" in gone[key] and not session.isinitpath(path):
            continue
        if _asked_for(session.config, path, name):
            parent = _RemovedFile.from_parent(session, path=path)
            item = Removed.from_parent(parent, name=name)
            item.key = key
            for marker in registered.intersection(gone[key]):
                item.add_marker(marker)
            items.append(item)
    return items


def _asked_for(config: pytest.Config, path: Path, name: str) -> bool:
    start, path = config.invocation_params.dir, path.resolve()
    ignored = [(start / folder).resolve() for folder in config.getoption("ignore") or ()]
    if any(folder == path or folder in path.parents for folder in ignored):
        return False
    if any(fnmatch(str(path), str(start / glob)) for glob in config.getoption("ignore_glob") or ()):
        return False
    # A node id without parameters selects them all.
    return any(
        (place == path or place in path.parents)
        and (not node or name == node or name.startswith((f"{node}[", f"{node}::")))
        for place, node in arguments(config)
    )
