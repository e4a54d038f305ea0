"""Sets the stage for a comparison: a checkout of the code before, and a server for each side."""

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

from perfsuite.against.controllers import Collected, Side
from perfsuite.against.import_paths import Trees, installed_folders
from perfsuite.against.messages import PROTOCOL
from perfsuite.against.worktree import Checkout, add_checkout, overlay
from perfsuite.records.git import Ref, resolve
from perfsuite.records.wording import software_changes


class StageError(RuntimeError):
    """Two sides that cannot be compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
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
class Stage:
    """Two sides that are ready, and are to be compared.

    Attributes:
        ref: the commit before, None if both sides have the working tree's code.
        before: the one side.
        after: the other.
        offers: what each has collected, by its name.
    """

    ref: Ref | None
    before: Side
    after: Side
    offers: Mapping[str, Collected]

    def header(self) -> list[str]:
        """Return lines that say what is compared."""
        then, now = self.offers["before"], self.offers["after"]
        tree = "the working tree"
        if self.ref is not None and self.ref.dirty:
            tree += ", with uncommitted changes"
        old = tree if self.ref is None else f"{self.ref.name} ({self.ref.commit[:12]})"
        lines = []
        for side, code, offer in (("before", old, then), ("after", tree, now)):
            names = offer.loaded["before" if self.ref and side == "before" else "after"]
            where = f"; its own {', '.join(names)}" if names else ""
            python = f"; {offer.prefix}" if then.prefix != now.prefix else ""
            lines.append(f"{side + ':':<7} {code}{where}{python}")
        changes = software_changes(then.software, now.software)
        return [*lines, *(f"  differs: {change}" for change in changes)]


@contextmanager
def set_stage(wanted: Wanted) -> Iterator[Stage]:
    """Check the code before out and start both sides; end them and clean up, come what may.

    Raises:
        GitError: the commit is not there, or cannot be checked out.
        SideError: a side could not be started, or its benchmarks not be collected.
        StageError: the sides are one and the same, or on different hardware.
    """
    stack = ExitStack()
    try:
        with _signals((signal.SIGTERM, signal.SIGHUP), signal.default_int_handler):
            yield _set(wanted, stack)
    finally:
        with _signals((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), signal.SIG_IGN):
            stack.close()


def _set(wanted: Wanted, stack: ExitStack) -> Stage:
    ref = None if wanted.ref is None else resolve(wanted.ref, wanted.suite)
    top = wanted.rootdir if ref is None else ref.top
    home = Path(os.path.realpath(tempfile.mkdtemp(prefix="perfsuite-")))
    stack.callback(shutil.rmtree, home, ignore_errors=True)
    checkout = None
    if ref is not None:
        # The folder's name is what the repository notes a worktree by, so it is one of a kind.
        checkout = home / home.name
        worktree = Checkout(top=ref.top, path=checkout)
        stack.callback(worktree.remove)
        add_checkout(ref, worktree)
        if wanted.suite.is_relative_to(top):
            overlay(top, checkout, wanted.suite.relative_to(top))
    where: dict[str, Any] = {
        "top": str(top),
        "checkout": None if checkout is None else str(checkout),
        "suite": os.path.relpath(wanted.suite, top),
    }
    tool = str(Path(__file__).parents[1])
    apart = Trees(**where, installed=installed_folders()).side_of(tool) is None
    sides = {}
    for name in ("before", "after"):

        def moved(path: Path, name: str = name) -> Path:
            """Return where a path of the working tree lies for this side."""
            if checkout is None or name == "after" or not path.is_relative_to(top):
                return path
            return checkout / path.relative_to(top)

        paths = [path for each in wanted.paths if (path := moved(each)).exists()]
        setup = {
            "protocol": PROTOCOL,
            **where,
            "home": str(moved(wanted.suite)),
            "here": wanted.folder in [Path(os.path.realpath(entry)) for entry in sys.path],
            # Unless perfsuite itself is under test, both sides are timed by this very one.
            "pin": tool if apart else None,
            "args": [
                *map(str, paths),
                f"--rootdir={_existing(moved(wanted.rootdir))}",
                f"--basetemp={home / f'{name}-tmp'}",
                # It may lie in the working tree, where $TMPDIR does.
                *([f"--ignore={home}"] if name == "after" else ()),
                *wanted.options,
            ],
        }
        side = Side(
            name,
            python=wanted.python if wanted.python and name == "before" else sys.executable,
            folder=_existing(moved(wanted.folder)),
            setup=setup,
            log=home / f"{name}.log",
        )
        sides[name] = stack.enter_context(side)
    offers = {name: side.collected() for name, side in sides.items()}
    _refuse_what_cannot_be_compared(offers["before"], offers["after"], one_tree=ref is None)
    return Stage(ref=ref, before=sides["before"], after=sides["after"], offers=offers)


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


def _refuse_what_cannot_be_compared(then: Collected, now: Collected, *, one_tree: bool) -> None:
    keys = [offer.hardware["key"] for offer in (then, now)]
    if keys[0] != keys[1]:
        raise StageError(f"before runs on {keys[0]} and after on {keys[1]}: not comparable")
    if one_tree and then.prefix == now.prefix and then.software == now.software:
        raise StageError(
            f"--perf-against-python names the interpreter of {now.prefix}, which runs after too:"
            " both sides are the same; name another, or a REF with --perf-against"
        )
