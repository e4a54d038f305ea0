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
from pathlib import Path
from typing import Any

from perfsuite.against.controllers import ServerController
from perfsuite.against.import_paths import Trees, installed_folders
from perfsuite.against.messages import Collected, Setup
from perfsuite.against.worktree import add_worktree, overlay, remove_worktree
from perfsuite.records.git import Ref, resolve
from perfsuite.records.wording import software_changes


class ComparisonError(RuntimeError):
    """Two sides that cannot be compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonRequest:
    """What is to be compared.

    Attributes:
        ref: the commit before; None if only the interpreter differs.
        python: the interpreter before; None if only the commit differs.
        folder: where pytest was started.
        rootdir: pytest's.
        suite: the folder with thresholds.toml.
        paths: files and folders to be collected.
        options: further options of the sides' pytest.
    """

    ref: str | None
    python: str | None
    folder: Path
    rootdir: Path
    suite: Path
    paths: Sequence[Path]
    options: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two sides that are ready.

    Attributes:
        ref: the commit before, None if both sides have the working tree's code.
        before: the one side.
        after: the other.
        collected: what each has, by its name.
    """

    ref: Ref | None
    before: ServerController
    after: ServerController
    collected: Mapping[str, Collected]

    def header(self) -> list[str]:
        """Return lines that say what is compared."""
        then, now = self.collected["before"], self.collected["after"]
        tree = "the working tree"
        if self.ref is not None and self.ref.dirty:
            tree += ", with uncommitted changes"
        old = tree if self.ref is None else f"{self.ref.name} ({self.ref.commit[:12]})"
        lines = []
        for side, code, has in (("before", old, then), ("after", tree, now)):
            names = has.loaded["before" if self.ref and side == "before" else "after"]
            where = f"; its own {', '.join(names)}" if names else ""
            python = f"; {has.prefix}" if then.prefix != now.prefix else ""
            lines.append(f"{side + ':':<7} {code}{where}{python}")
        changes = software_changes(then.software, now.software)
        return [*lines, *(f"  differs: {change}" for change in changes)]


@contextmanager
def prepare(request: ComparisonRequest) -> Iterator[Comparison]:
    """Check the code before out and start both sides; at the end stop them and clean up.

    Raises:
        GitError: the commit is not there, or cannot be checked out.
        SideError: a side could not be started, or its benchmarks not be collected.
        ComparisonError: the sides are the same, or on different hardware.
    """
    stack = ExitStack()
    try:
        with _signals((signal.SIGTERM, signal.SIGHUP), signal.default_int_handler):
            yield _prepare(request, stack)
    finally:
        with _signals((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), signal.SIG_IGN):
            stack.close()


def _prepare(request: ComparisonRequest, stack: ExitStack) -> Comparison:
    ref = None if request.ref is None else resolve(request.ref, request.suite)
    top = request.rootdir if ref is None else ref.top
    home = Path(os.path.realpath(tempfile.mkdtemp(prefix="perfsuite-")))
    stack.callback(shutil.rmtree, home, ignore_errors=True)
    checkout = None
    if ref is not None:
        # The repository registers a worktree under its folder's name, so it must be unique.
        checkout = home / home.name
        stack.callback(remove_worktree, top, checkout)
        add_worktree(ref, checkout)
        if request.suite.is_relative_to(top):
            overlay(top, checkout, request.suite.relative_to(top))
    servers = {
        name: stack.enter_context(_start(name, request, top, checkout, home))
        for name in ("before", "after")
    }
    collected = {name: server.collected() for name, server in servers.items()}
    refuse_incomparable(collected["before"], collected["after"], one_tree=ref is None)
    return Comparison(ref=ref, **servers, collected=collected)


def _start(
    side: str, request: ComparisonRequest, top: Path, checkout: Path | None, home: Path
) -> ServerController:
    def moved(path: Path) -> Path:
        """Return where a path of the working tree lies for this side."""
        if checkout is None or side == "after" or not path.is_relative_to(top):
            return path
        return checkout / path.relative_to(top)

    where = (
        str(top),
        None if checkout is None else str(checkout),
        os.path.relpath(request.suite, top),
    )
    ours = str(Path(__file__).parents[1])
    under_test = Trees(*where, installed_folders()).side_of(ours) is not None
    setup = Setup(
        side=side,
        top=where[0],
        checkout=where[1],
        suite=where[2],
        suite_folder=str(moved(request.suite)),
        working_folder_first=request.folder in [Path(os.path.realpath(p)) for p in sys.path],
        # Unless perfsuite itself is under test, both sides are timed by this very one.
        perfsuite=None if under_test else ours,
        arguments=[
            *(str(path) for path in map(moved, request.paths) if path.exists()),
            f"--rootdir={_existing(moved(request.rootdir))}",
            f"--basetemp={home / f'{side}-tmp'}",
            # It may lie in the working tree, where $TMPDIR does.
            *([f"--ignore={home}"] if side == "after" else ()),
            *request.options,
        ],
    )
    return ServerController(
        setup,
        python=request.python if request.python and side == "before" else sys.executable,
        folder=_existing(moved(request.folder)),
        log=home / f"{side}.log",
    )


def _existing(folder: Path) -> Path:
    """Return a folder, or the nearest above it that there is."""
    return next(each for each in (folder, *folder.parents) if each.is_dir())


@contextmanager
def _signals(numbers: Sequence[signal.Signals], handler: Any) -> Iterator[None]:
    """Handle signals otherwise for a while; only the main thread may."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {
        number: signal.signal(number, handler)
        for number in numbers
        if signal.getsignal(number) is not signal.SIG_IGN  # as under nohup
    }
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def refuse_incomparable(then: Collected, now: Collected, *, one_tree: bool) -> None:
    """Raise ComparisonError if two sides are the same, or on different hardware.

    Args:
        then: what the side before has.
        now: what the side after has.
        one_tree: whether both run the working tree's code.
    """
    keys = [side.hardware["key"] for side in (then, now)]
    if keys[0] != keys[1]:
        raise ComparisonError(f"before runs on {keys[0]} and after on {keys[1]}: not comparable")
    if one_tree and then.prefix == now.prefix and then.software == now.software:
        raise ComparisonError(
            f"--perf-against-python names the interpreter of {now.prefix}, which also runs the"
            " side after: both sides are the same; name another, or a REF with --perf-against"
        )
