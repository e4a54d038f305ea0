"""A restart: a pair of fresh processes that run one benchmark, one with each side's code."""

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from perfsuite.against.comparison import ComparisonError
from perfsuite.against.controllers import ServerController, SideError
from perfsuite.against.messages import Done, Ready
from perfsuite.judging.blocks import Block
from perfsuite.judging.interleaving import Duet, starting_order, take_turns
from perfsuite.judging.stopping import Show

MIN_QUADS, MAX_QUADS = 2, 12  # groups of four blocks that a restart takes
TURNS_OVER_START = 2  # how long they last, in times of what it took to get there

SideRecord = Mapping[str, Any]  # what one side measured of a benchmark, as in a run's JSON


class Sides(Protocol):
    """Two sides that are ready, A and B of a restart."""

    @property
    def before(self) -> ServerController:
        """A, which runs the code before."""

    @property
    def after(self) -> ServerController:
        """B, which runs the code after."""

    def misplaced(self, then: Mapping[str, list[str]], now: Mapping[str, list[str]]) -> str | None:
        """Return why their workers, by `Done.loaded`, did not run two trees' code, if so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Restart:
    """What a pair of fresh processes measured; A is before and B after."""

    started: str  # which side was started first: "AB" or "BA"
    duets: Mapping[str, Duet]  # the turns that they took, by what was timed
    before: SideRecord
    after: SideRecord
    files: tuple[str, ...] = ()  # that either imported from its tree, relative to that

    def record(self) -> dict[str, Any]:
        """Return all of it for the run's JSON."""
        return {
            "started": self.started,
            "turns": {
                name: {"order": duet.order, "blocks": [_known(b.kept()) for b in duet.blocks]}
                for name, duet in self.duets.items()
            },
            **{
                side: {
                    "metrics": record["metrics"],
                    # Its blocks are those of the turns.
                    "raw": {name: raw for name, raw in record["raw"].items() if name != "blocks"},
                }
                for side, record in (("before", self.before), ("after", self.after))
            },
        }


def _known(figures: dict[str, Any]) -> dict[str, Any]:
    # Most of a machine's state is unknown, thousands of times.
    return {
        name: _known(value) if isinstance(value, dict) else value
        for name, value in figures.items()
        if value is not None
    }


def run_restart(
    comparison: Sides,
    key: str,
    index: int,
    show: Show,
    *,
    config: Mapping[str, Any] | None = None,
    explain: bool = False,
) -> Restart:
    """Run a benchmark in a fresh process of each side; only one of them works at a time.

    `index` decides who starts and who goes first; both measure as `config` says, where it does;
    `explain` lets both profile what they have timed. Raises SideError, and ComparisonError where
    they do not run two trees' code, or time different things.
    """
    sides = {"A": comparison.before, "B": comparison.after}
    order = starting_order(index)
    duets: dict[str, Duet] = {}
    with ExitStack() as stack:
        workers = {}
        for letter in order:
            side = sides[letter]
            worker = side.start(key, index, partial(show, f"{side.side}:"), config=config)
            workers[letter] = stack.enter_context(worker)
        while True:
            go_s = time.monotonic()
            answers = {letter: workers[letter].go(explain=explain) for letter in order}
            then, now = answers["A"], answers["B"]
            if isinstance(then, Done) and isinstance(now, Done):
                break
            names = [each.what if isinstance(each, Ready) else "nothing" for each in (then, now)]
            if names[0] != names[1]:
                raise ComparisonError(
                    f"the code after times {names[1]} where the code before times {names[0]}"
                )
            name = "step_s" if not duets else f"step_s {names[0]} {len(duets) + 1}"
            start_s = time.monotonic() - go_s
            first, second = (workers[letter].block for letter in "AB")
            duets[name] = take_turns(first, second, index=index, quads=partial(_quads, start_s))
    if why_not := comparison.misplaced(then.loaded, now.loaded):
        raise ComparisonError(
            f"not two trees: {why_not}; install the project in editable mode, or put it on"
            " pytest's pythonpath"
        )
    files = {file for each in (then, now) for file in each.loaded.get("files", ())}
    return Restart(
        started=order,
        duets=duets,
        before=then.record,
        after=now.record,
        files=tuple(sorted(files)),
    )


def run_alike(
    comparison: Sides, key: str, index: int, show: Show, *, config: Mapping[str, Any] | None
) -> Restart:
    """Run a restart in which what each side would look for by itself is the same on both.

    That is as `config` says, or as A finds it without one. Raises what `run_restart` raises.
    """
    run = partial(run_restart, comparison, key, index, show)
    found = run(config=config)
    if config is None and found.after.get("config", {}) != config_of(found):
        found = run(config=config_of(found))
    return found


def config_of(restart: Restart) -> Mapping[str, Any]:
    """Return the config by which A measured."""
    found: Mapping[str, Any] = restart.before.get("config", {})
    return found


def run_alone(server: ServerController, key: str, show: Show) -> str | None:
    """Run a benchmark on one side, a block of whatever it times; return why it could not."""
    try:
        with server.start(key, 0, partial(show, f"{server.side}:")) as worker:
            while isinstance(worker.go(), Ready):
                worker.block()
    except SideError as error:
        return error.reason
    return None


def _quads(start_s: float, block: Block) -> int:
    """Return how many quads are worth what it took to get there.

    Turns pay as long as pairs of processes differ less than turns within a pair do: by the root
    of both ratios, of costs and of variances (Kalibera and Jones, ISMM 2013). The studies' pairs
    have a minimum at about twice the start, and it is flat.
    """
    quads = round(TURNS_OVER_START * start_s / (4 * block.steps * block.wall_s))
    return min(max(quads, MIN_QUADS), MAX_QUADS)
