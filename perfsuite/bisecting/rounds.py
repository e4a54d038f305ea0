"""Rounds of a bisection: a version beside both ends, measured once and kept for the next time.

A search decides by what was measured alone, so that one that was broken off, and finds its rounds
in the file, comes to where it was.
"""

import os
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from perfsuite.against.comparison import ComparisonError
from perfsuite.against.controllers import ServerController, SideError
from perfsuite.against.messages import Collected, Ready
from perfsuite.against.old_environment import EnvironmentUnavailableError
from perfsuite.against.restart import Restart, config_of, run_alike
from perfsuite.bisecting.compared_figures import figures_of, kinds_of_losses
from perfsuite.bisecting.rows import Row
from perfsuite.judging.counts import Ledger
from perfsuite.judging.stopping import Show
from perfsuite.records.git import GitError
from perfsuite.records.ledgers import ledger_in

_CANNOT_RUN = (SideError, GitError, EnvironmentUnavailableError)


class BisectionError(RuntimeError):
    """A row that cannot be searched; the message says why, and what to do."""


class Round(msgspec.Struct, frozen=True, kw_only=True, tag="round"):
    """What a version was found to be beside both ends, once; figures by name.

    Attributes:
        key: of the benchmark.
        version: what its step is, in a line.
        over_good: this version's figures over those of the good end.
        bad_over: the bad end's figures over this version's; empty where this is the bad end.
        config: to what all keep, as the good end found it.
        files: that were imported from a tree.
        why: why it could not be compared; nothing if it was.
    """

    key: str
    version: str
    over_good: dict[str, float] = {}
    bad_over: dict[str, float] = {}
    config: dict[str, Any] = {}
    files: list[str] = []
    why: str = ""


class Count(msgspec.Struct, frozen=True, kw_only=True, tag="count"):
    """What a version was counted to do, which is exact; or why it could not be.

    A benchmark without a ledger counts nothing; one that has one may have other figures, too.
    """

    key: str
    version: str
    ledger: Ledger | None = None
    measures: bool = False  # whether it has figures beside the ledger
    kinds: dict[str, str] = {}  # what kind of number each mean loss is, if it trains
    files: list[str] = []  # that were imported from a tree
    why: str = ""


class RoundLog:
    """What was measured, a line each, in a file that only grows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[tuple[type, str, str], deque[Round | Count]] = defaultdict(deque)
        for each in self._read():
            if not each.why:  # what failed is tried again: its cause may be gone
                self._known[type(each), each.key, each.version].append(each)

    def _read(self) -> Iterable[Round | Count]:
        decoder = msgspec.json.Decoder(Round | Count)
        if not self._path.exists():
            return
        for line in self._path.read_bytes().splitlines():
            try:
                yield decoder.decode(line)
            except msgspec.DecodeError:  # cut short, as where the disk was full
                continue

    def take(self, kind: type, key: str, version: str) -> Round | Count | None:
        """Return what was measured of a version and not yet taken, the earliest first."""
        left = self._known[kind, key, version]
        return left.popleft() if left else None

    def add(self, each: Round | Count) -> None:
        """Keep what was measured."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a+b") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                file.write(b"" if file.read(1) == b"\n" else b"\n")  # a line was cut short
            file.write(msgspec.json.encode(each) + b"\n")
            os.fsync(file.fileno())


@dataclass(frozen=True, slots=True, kw_only=True)
class _PairOfVersions:
    """Two versions that take turns."""

    row: Row
    before: ServerController
    after: ServerController

    def misplaced(self, then: dict[str, list[str]], now: dict[str, list[str]]) -> str | None:
        for server, loaded in ((self.before, then), (self.after, now)):
            if why := self.row.misplaced(loaded):
                return f"{server.side}: {why}"
        return None


class Rounds:
    """Measures versions of a row; both ends and one version between them run at a time."""

    def __init__(
        self, row: Row, opened: Callable[[Collected], RoundLog], stack: ExitStack, show: Show
    ) -> None:
        """Start both ends; raises BisectionError where one cannot be.

        `opened` returns the file, by what the bad end has.
        """
        self.row = row
        self._stack = stack
        self._show = show
        self._between: tuple[int, ServerController, ExitStack] | None = None
        self._taken: dict[tuple[str, int], int] = defaultdict(int)
        self._counts: dict[tuple[str, int], Count] = {}
        self._configs: dict[str, Mapping[str, Any]] = {}  # by benchmark
        self._ends: dict[int, ServerController] = {}
        self.collected: dict[int, Collected] = {}
        for end in (0, len(row.steps)):
            try:
                self._ends[end] = row.start(end, stack)
                self.collected[end] = self._ends[end].collected()
            except (*_CANNOT_RUN, OSError) as error:
                raise BisectionError(f"the {self.told(end)} cannot be started: {error}") from None
        self._log = opened(self.collected[len(row.steps)])

    def told(self, version: int) -> str:
        """Return what a version is called."""
        ends = {0: "good end", len(self.row.steps): "bad end"}
        return ends.get(version) or self.row.steps[version - 1]

    def round(self, key: str, version: int) -> Round:
        """Return a round of a version, from the file or by four fresh processes."""
        name = self.row.steps[version - 1]
        index = self._taken[key, version]
        self._taken[key, version] += 1
        known = self._log.take(Round, key, name)
        if known is None:
            known = self._measure(key, version, name, index)
            self._log.add(known)
        assert isinstance(known, Round)
        if known.config:
            self._configs.setdefault(key, known.config)
        return known

    def count(self, key: str, version: int) -> Count:
        """Return what a version is counted to do, from the file or by a fresh process, once."""
        if (key, version) in self._counts:
            return self._counts[key, version]
        name = self.row.steps[version - 1] if version else "good end"
        known = self._log.take(Count, key, name)
        if known is None:
            known = self._count(key, version, name)
            self._log.add(known)
        assert isinstance(known, Count)
        self._counts[key, version] = known
        return known

    def _measure(self, key: str, version: int, name: str, index: int) -> Round:
        good, bad = self._ends[0], self._ends[len(self.row.steps)]
        found: list[Restart] = []
        config = self._configs.get(key)
        try:
            one = self._server(version)
            pairs = [(good, one), (one, bad)] if one is not bad else [(good, bad)]
            for before, after in pairs:
                pair: Any = _PairOfVersions(row=self.row, before=before, after=after)
                found.append(run_alike(pair, key, index, self._show, config=config))
                config = config_of(found[0]) if config is None else config
        except ComparisonError as error:
            if version in self._ends:
                raise BisectionError(f"both ends cannot be compared: {error}") from None
            return Round(key=key, version=name, why=str(error))
        except _CANNOT_RUN as error:
            self._blame(error)
            return Round(key=key, version=name, why=str(error))
        files = sorted({file for each in found for file in each.files})
        ratios = [figures_of(each) for each in found]
        return Round(
            key=key,
            version=name,
            over_good=ratios[0],
            bad_over=ratios[1] if len(ratios) > 1 else {},
            config=dict(config or {}),
            files=files,
        )

    def _count(self, key: str, version: int, name: str) -> Count:
        try:
            server = self._server(version)
            with server.start(key, 0, partial(self._show, f"{server.side}:")) as worker:
                timed = False
                while isinstance(done := worker.go(), Ready):
                    timed = True
                    worker.block()
        except _CANNOT_RUN as error:
            self._blame(error)
            return Count(key=key, version=name, why=str(error))
        raw = done.record.get("raw", {})
        return Count(
            key=key,
            version=name,
            ledger=ledger_in(raw),
            kinds=kinds_of_losses(done.record),
            measures=timed or bool(done.record.get("metrics") or raw.get("pairs")),
            files=list(done.loaded.get("files", ())),
        )

    def _server(self, version: int) -> ServerController:
        """Return a version's server; that of another between the ends is ended first."""
        if version in self._ends:
            return self._ends[version]
        if self._between is not None and self._between[0] == version:
            return self._between[1]
        self.end_between()
        stack = self._stack.enter_context(ExitStack())
        try:
            server = self.row.start(version, stack)
            server.collected()
        except BaseException:
            stack.close()
            raise
        self._between = version, server, stack
        return server

    def end_between(self) -> None:
        """End what runs between the ends."""
        if self._between is not None:
            self._between[2].close()
            self._between = None

    def _blame(self, error: Exception) -> None:
        """Raise BisectionError where it is an end that failed: nothing can be compared then."""
        for end, server in self._ends.items():
            if isinstance(error, SideError) and error.side == server.side:
                raise BisectionError(f"the {self.told(end)} failed: {error}") from None
