"""A pair of fresh processes that run one benchmark, one with each side's code."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

from perfsuite.against.changes import Restart
from perfsuite.against.controllers import Side, SideError
from perfsuite.against.setup import Stage, StageError
from perfsuite.judging.blocks import Block
from perfsuite.judging.interleaving import starting_order, take_turns

if TYPE_CHECKING:
    from perfsuite.judging.interleaving import Duet

_MIN_QUADS, _MAX_QUADS = 2, 12

Show = Callable[[str, int, int], None]
"""Shows what is being done, how many parts of it are done, and of how many."""

Loaded = Mapping[str, Sequence[str]]
"""Packages that a process imported, by where they came from (`trees.Trees.loaded`)."""


def pair(stage: Stage, key: str, index: int, show: Show, *, explain: bool = False) -> Restart:
    """Run a benchmark in a fresh process of each side; only one of them works at a time.

    Args:
        stage: both sides.
        key: of the benchmark.
        index: of the restart; decides who starts and who goes first.
        show: shows progress.
        explain: let both profile what they have timed.

    Raises:
        SideError: one of them ended, or could not run it.
        StageError: they did not run the code of two trees, or do not time the same.
    """
    sides = {"A": stage.before, "B": stage.after}
    order = starting_order(index)
    duets: dict[str, Duet] = {}
    with ExitStack() as stack:
        workers = {
            letter: stack.enter_context(
                sides[letter].start(key, index, partial(show, f"{sides[letter].name}:"))
            )
            for letter in order
        }
        while True:
            begun_s = time.monotonic()
            said = {letter: workers[letter].go(explain=explain) for letter in order}
            if {each["kind"] for each in said.values()} == {"done"}:
                break
            names = {letter: each.get("what", "nothing") for letter, each in said.items()}
            if names["A"] != names["B"]:
                raise StageError(
                    f"the code after times {names['B']} where the code before times {names['A']}"
                )
            name = "step_s" if not duets else f"step_s {names['A']} {len(duets) + 1}"
            start_s = time.monotonic() - begun_s
            duets[name] = take_turns(
                workers["A"].block,
                workers["B"].block,
                index=index,
                quads=partial(_quads, start_s),
            )
    if stage.ref is not None:
        why_not = misplaced(said["A"]["loaded"], said["B"]["loaded"])
        if why_not is not None:
            raise StageError(
                f"not two trees: {why_not}; install the project in editable mode, or put it on"
                " pytest's pythonpath"
            )
    return Restart(
        started=order, duets=duets, before=said["A"]["record"], after=said["B"]["record"]
    )


def alone(side: Side, key: str, show: Show) -> str | None:
    """Run a benchmark on one side, a block of whatever it times; return why it could not."""
    try:
        with side.start(key, 0, partial(show, f"{side.name}:")) as worker:
            while worker.go()["kind"] == "ready":
                worker.block()
    except SideError as error:
        return error.reason
    return None


def _quads(start_s: float, block: Block) -> int:
    """Return how many quads take about as long as it took to get there."""
    return min(max(round(start_s / (4 * block.steps * block.wall_s)), _MIN_QUADS), _MAX_QUADS)


def misplaced(then: Loaded, now: Loaded) -> str | None:
    """Return why two workers did not run the code of their own tree, None if they did.

    Args:
        then: what the one before imported.
        now: what the one after imported.
    """
    if then["after"]:
        return f"before imported {', '.join(then['after'])} from the working tree"
    if now["before"]:
        return f"after imported {', '.join(now['before'])} from the checkout"
    for side, own, other, loaded in (
        ("before", then["before"], now["after"], then),
        ("after", now["after"], then["before"], now),
    ):
        strays = {*loaded["shadowed"], *((set(other) - set(own)) & set(loaded["neither"]))}
        if strays:
            return f"{side} imported {', '.join(sorted(strays))} from where it is installed"
    if not then["before"] and not now["after"]:
        return "nothing but the benchmarks themselves was imported from either tree"
    return None
