"""A pair of fresh processes that run one benchmark, one with each side's code."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial

from perfsuite.changes import Restart
from perfsuite.duet import Duet
from perfsuite.restarts import starting_order, take_turns
from perfsuite.sides import SideError, Worker
from perfsuite.stage import Stage, StageError

__all__ = ["misplaced", "pair"]

_MIN_QUADS, _MAX_QUADS = 2, 12

Show = Callable[[str, int, int], None]
"""Shows what is being done, how many parts of it are done, and of how many."""

Loaded = Mapping[str, Sequence[str]]
"""Packages that a process imported: "before" or "after" by the tree, or "neither"."""


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
        StageError: they did not run the code of two trees.
    """
    sides = {"A": stage.before, "B": stage.after}
    order = starting_order(index)
    duets: dict[str, Duet] = {}
    with ExitStack() as stack:
        workers = {
            letter: stack.enter_context(
                sides[letter].start(key, partial(show, f"{sides[letter].name}:"))
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
                why = f"it times {names['A']} where the code after times {names['B']}"
                raise SideError("before", why)
            name = "step_s" if not duets else f"step_s {len(duets) + 1}"
            duets[name] = _turns(workers, index, time.monotonic() - begun_s)
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


def _turns(workers: Mapping[str, Worker], index: int, start_s: float) -> Duet:
    """Let two workers take turns for about as long as it took to get there."""
    first, second = (workers[letter].block for letter in "AB")
    block = first()
    quad_s = 4 * block.steps * block.wall_s
    quads = min(max(round(start_s / quad_s), _MIN_QUADS), _MAX_QUADS)
    return take_turns(first, second, index=index, quads=quads)


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
    for side, own, other, elsewhere in (
        ("before", then["before"], now["after"], then["neither"]),
        ("after", now["after"], then["before"], now["neither"]),
    ):
        if strays := sorted((set(other) - set(own)) & set(elsewhere)):
            return f"{side} imported {', '.join(strays)} from neither tree, as it is installed"
    if not then["before"] and not now["after"]:
        return "nothing but the benchmarks themselves was imported from either tree"
    return None
