"""What is compared with what: the code before in a worktree, and a server for each side."""

import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from perfsuite.against.controllers import ServerController, SideError
from perfsuite.against.import_paths import Trees, installed_folders, misplaced
from perfsuite.against.messages import Collected, Setup
from perfsuite.against.own_suites import installed_instead
from perfsuite.against.worktree import add_worktree, overlay, remove_worktree
from perfsuite.devices.choice import environment_of
from perfsuite.judging.hardware import current_key
from perfsuite.records.commits import of_benchmark, which_commit, which_package
from perfsuite.records.git import Ref, resolve
from perfsuite.records.wording import software_changes
from perfsuite.session.collection import arguments
from perfsuite.session.options import parallel_asked, ranks_of


class ComparisonError(RuntimeError):
    """Two sides that cannot be compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two sides that are ready."""

    ref: Ref | None  # the commit before; None if both sides have the working tree's code
    before: ServerController
    after: ServerController
    collected: Mapping[str, Collected]  # by "before" and "after"
    suite: Path
    python: str | None = None  # of the side before, where that is not this one

    def misplaced(self, then: Mapping[str, list[str]], now: Mapping[str, list[str]]) -> str | None:
        """Return why two workers did not run two trees' code; None where there is only one."""
        if self.ref is None:
            return None
        return misplaced(then, now) or installed_instead(now, self.ref.top, self.suite)

    def which(self, key: str, figure: str) -> list[str]:
        """Return the commands that find what changed a benchmark's figure, if any can.

        Both where the commit and the packages differ: each searches under one of the other.
        """
        if "one_tree" in self.collected["after"].items.get(key, ()):  # none searches it
            return []
        searched = of_benchmark(key, self.suite, self.after.ranks, figure)
        found: list[str] = []
        if self.ref is not None:
            found += which_commit(self.ref.commit, searched, self.suite)
        then, now = (self.collected[side].software for side in ("before", "after"))
        if self.python is not None and then != now:
            found += which_package(self.python, searched)
        return found

    def software_changes(self) -> list[str]:
        """Return what software differs between both sides, a line each."""
        return software_changes(*(self.collected[side].software for side in ("before", "after")))

    def header(self) -> list[str]:
        """Return lines that say what is compared."""
        then, now = self.collected["before"], self.collected["after"]
        tree = "the working tree"
        if self.ref is not None and self.ref.dirty:
            tree += ", with uncommitted changes"
        old = tree if self.ref is None else self.ref.told
        lines = []
        for side, code, has in (("before", old, then), ("after", tree, now)):
            names = has.loaded["before" if self.ref and side == "before" else "after"]
            where = f"; its own {', '.join(names)}" if names else ""
            python = f"; {has.prefix}" if then.prefix != now.prefix else ""
            lines.append(f"{side + ':':<7} {code}{where}{python}")
        return [*lines, *(f"  differs: {change}" for change in self.software_changes())]


@contextmanager
def prepare(
    config: pytest.Config,
    suite: Path,
    *,
    ref: str | None,
    python: str | None,
    own_suites: bool = False,
) -> Iterator[Comparison]:
    """Check the code before out and start both sides; at the end stop them and clean up.

    Without `ref` the code before is the working tree's too; `python` is its interpreter, where
    that is not this one. With `own_suites` the code before brings its own benchmarks, which are
    under test as well; without, both sides run the working tree's. Raises GitError, SideError where
    a side does not start or collect, and ComparisonError.
    """
    with cleaned_up() as stack:
        commit = None if ref is None else resolve(ref, suite)
        top = config.rootpath.resolve() if commit is None else commit.top
        home, checkout = home_of_a_side(stack), None
        if commit is not None:
            checkout = checked_out(commit, suite, home, stack, own_suite=own_suites)
        start = partial(
            start_side,
            config=config,
            suite=suite,
            top=top,
            checkout=checkout,
            home=home,
            own_suites=own_suites,
        )
        pythons = {"before": python, "after": None}
        servers = {side: stack.enter_context(start(side, it)) for side, it in pythons.items()}
        collected = {side: server.collected() for side, server in servers.items()}
        refuse_incomparable(collected["before"], collected["after"], one_tree=commit is None)
        yield Comparison(ref=commit, **servers, collected=collected, suite=suite, python=python)


@contextmanager
def working_tree(config: pytest.Config, suite: Path) -> Iterator[ServerController]:
    """Start a server of the working tree alone; SideError where it does not start or collect."""
    with cleaned_up() as stack:
        top = config.rootpath.resolve()
        started = start_side(
            "after",
            None,
            config=config,
            suite=suite,
            top=top,
            checkout=None,
            home=home_of_a_side(stack),
        )
        server = stack.enter_context(started)
        server.collected()
        yield server


@contextmanager
def cleaned_up() -> Iterator[ExitStack]:
    """Yield a stack that is closed at the end, whichever signal ends it."""
    stack = ExitStack()
    try:
        with _signals((signal.SIGTERM, signal.SIGHUP), signal.default_int_handler):
            yield stack
    finally:
        with _signals((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), signal.SIG_IGN):
            stack.close()


def home_of_a_side(stack: ExitStack) -> Path:
    """Return a folder of its own for a side, which goes when the stack is closed."""
    home = Path(os.path.realpath(tempfile.mkdtemp(prefix="perfsuite-")))
    stack.callback(shutil.rmtree, home, ignore_errors=True)
    return home


def checked_out(
    ref: Ref, suite: Path, home: Path, stack: ExitStack, *, own_suite: bool = False
) -> Path:
    """Check a commit out into `home`, until the stack is closed.

    It has the working tree's suite, unless it is to keep its own.
    """
    # The repository registers a worktree under its folder's name, so it must be unique.
    checkout = home / home.name
    stack.callback(remove_worktree, ref.top, checkout)
    add_worktree(ref, checkout)
    if suite.is_relative_to(ref.top) and not own_suite:
        overlay(ref.top, checkout, suite.relative_to(ref.top))
    return checkout


def start_side(
    side: str,
    python: str | None,
    *,
    config: pytest.Config,
    suite: Path,
    top: Path,
    checkout: Path | None,
    home: Path,
    name: str | None = None,
    own_suites: bool = False,
) -> ServerController:
    """Start the server of a side: "before" has the code of the checkout, "after" that of `top`.

    `name` is what it is called where something is wrong with it. Raises SideError.
    """

    def moved(path: Path) -> Path:
        """Return where a path of the working tree lies for this side."""
        if checkout is None or side == "after" or not path.is_relative_to(top):
            return path
        return checkout / path.relative_to(top)

    folder = config.invocation_params.dir.resolve()
    code_before = None if checkout is None else str(checkout)
    shared = None if own_suites else os.path.relpath(suite, top)
    where = (str(top), code_before, shared)
    ours = str(Path(__file__).parents[1])
    under_test = Trees(*where, installed_folders()).side_of(ours) is not None
    asked = sorted({place for place, _ in arguments(config)})
    paths = [path for path in map(moved, asked) if path.exists()]
    if not paths:  # it would collect whatever else there is
        lacking = ", ".join(os.path.relpath(path, top) for path in asked)
        remedy = ": promote runs of a commit that has" * own_suites
        raise SideError(name or side, f"it has no {lacking}{remedy}")
    setup = Setup(
        side=side,
        top=where[0],
        checkout=where[1],
        suite=where[2],
        suite_folder=str(moved(suite)),
        working_folder_first=folder in [Path(os.path.realpath(p)) for p in sys.path],
        # Unless perfsuite itself is under test, both sides are timed by this very one.
        perfsuite=None if under_test else ours,
        arguments=[
            *map(str, paths),
            f"--rootdir={_existing(moved(config.rootpath.resolve()))}",
            f"--basetemp={home / f'{side}-tmp'}",
            # It may lie in the working tree, where $TMPDIR does.
            *([f"--ignore={home}"] if side == "after" else ()),
            *options_of_the_sides(config),
            f"--perf-budget={config.option.perf_budget}",
        ],
        ranks=ranks_of(config),
    )
    return ServerController(
        setup,
        python=sys.executable if python is None else str(folder / Path(python).expanduser()),
        folder=_existing(moved(folder)),
        log=home / f"{side}.log",
        environment=environment_of(config.option.perf_device),
        name=name,
    )


def options_of_the_sides(config: pytest.Config) -> list[str]:
    """Return the options by which it is decided what the sides' own pytest measures."""
    option = config.option
    workload, parallel = option.perf_workload, parallel_asked(config)
    return [
        "--override-ini=addopts=",  # of this session, and not of theirs
        *(f"--override-ini={each}" for each in option.override_ini or ()),
        *(f"-p{plugin}" for plugin in option.plugins or ()),
        "-pno:cacheprovider",
        "--capture=no",
        "--continue-on-collection-errors",
        f"--import-mode={option.importmode}",
        f"--perf-device={option.perf_device}",
        f"--perf-data={option.perf_data}",
        *([f"--perf-workload={workload}"] if workload is not None else ()),
        *([f"--perf-epochs={option.perf_epochs}"] if option.perf_epochs is not None else ()),
        *([f"--perf-parallel={parallel}"] if parallel is not None else ()),
    ]


def _existing(folder: Path) -> Path:
    """Return a folder, or the nearest above it that there is."""
    return next(each for each in (folder, *folder.parents) if each.is_dir())


@contextmanager
def _signals(numbers: Sequence[signal.Signals], handler: Any) -> Iterator[None]:
    """Handle signals otherwise for a while; only the main thread may."""
    main = threading.current_thread() is threading.main_thread()
    before = {
        number: signal.signal(number, handler)
        for number in numbers
        if main and signal.getsignal(number) is not signal.SIG_IGN  # as under nohup
    }
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def refuse_incomparable(then: Collected, now: Collected, *, one_tree: bool) -> None:
    """Raise ComparisonError if two sides are the same, or on different hardware."""
    before, after = (current_key(side.hardware["key"]) for side in (then, now))
    if before != after:
        raise ComparisonError(f"before runs on {before} and after on {after}: not comparable")
    if one_tree and then.prefix == now.prefix and then.software == now.software:
        raise ComparisonError(
            f"--perf-against-python names the interpreter of {now.prefix}, which also runs the"
            " side after: both sides are the same; name another, or a REF with --perf-against"
        )
