"""What a step is compiled into, counted over a script: steps, other batch sizes, evaluation, again.

The script is short, and has what makes a compiler begin anew in a training: the smaller batch at an
epoch's end, the switch to evaluation and back, and whatever changes from step to step. Each graph
runs as it was traced, so that no C++ compiler is needed, and counts depend on no cache.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from perfsuite.judging.counts import Ledger
from perfsuite.measuring.compiler import Compilations, compiler_loaded, watched_compiler
from perfsuite.training.arm import Arm, NotShownError
from perfsuite.training.batches import TrainingError, resized, samples_in

if TYPE_CHECKING:
    from torch import nn

Part = Callable[[], str]
"""Takes steps; returns the line of the error that ended them, if one did."""

FURTHER_STEPS = 3
GRAPHS, BREAKS, GIVEN_UP = "compiler: graphs", "compiler: graph breaks", "compiler: frames given up"


def count_compilation(arm: Arm) -> Ledger:
    """Take steps of an arm by the script, and count what is compiled; nothing where nothing is.

    Counts are ``compiler: graphs`` of the first step, ``compiler: graph breaks`` (places in the
    source, in the whole script), ``compiler: compilations PART`` (what was compiled in a part that
    was not before it), and ``compiler: frames given up``, which run uncompiled. A part
    that the step cannot run, as in evaluation mode, is not counted: `about` tells its error.
    """
    (batch,) = arm.take(1)
    if not compiler_loaded():
        return Ledger()
    with watched_compiler() as watch:
        arm.step(batch)
        first = watch.told()
        if not first.frames:
            return Ledger()
        others, sizes = _other_sizes(batch)
        about = {"compiled for batches of": sizes}
        told: dict[str, Compilations] = {}
        for name, part in _script(_parts(arm, batch, others)).items():
            error, found = part(), watch.told()
            if error:
                about[f"not counted {name}"] = error
            else:
                told[name] = found
    return _ledger(first, told, about)


def compiles(arm: Arm, batch: Any) -> bool:
    """Take a step, and tell whether anything of it is compiled."""
    if not compiler_loaded():
        return False
    with watched_compiler() as watch:
        arm.step(batch)
        return bool(watch.told().frames)


def _script(epoch: dict[str, Part]) -> dict[str, Part]:
    def again() -> str:
        for part in epoch.values():
            part()
        return ""

    return {**epoch, "in a second epoch": again}


def _parts(arm: Arm, batch: Any, others: Sequence[Any]) -> dict[str, Part]:
    def further() -> str:
        for _ in range(FURTHER_STEPS):
            arm.step(batch)
        return ""

    def steps(batches: Sequence[Any]) -> str:
        try:
            for each in batches:
                arm.step(each)
        except Exception as error:  # whatever a step that is made for this batch alone raises
            return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        return ""

    def evaluation() -> str:
        with _evaluating(arm):
            return steps([batch, *others])

    parts: dict[str, Part] = {"in further steps": further}
    if others:
        parts["at other batch sizes"] = partial(steps, others)
    return {**parts, "in evaluation mode": evaluation}


def _other_sizes(batch: Any) -> tuple[list[Any], str]:
    """Return a batch in two other sizes, one of them odd, and what they are; none if it has none.

    A compiler makes a constant of a first size, and a variable of the second: a third shows it.
    """
    try:
        samples = samples_in(batch)
        fewer = samples >= 4  # a single sample is a case of its own, for a compiler too
        sizes = [samples // 2, samples // 2 + 1] if fewer else [2 * samples, 2 * samples + 1]
        return [resized(batch, each) for each in sizes], ", ".join(map(str, [samples, *sizes]))
    except TrainingError:
        return [], "one"


@contextmanager
def _evaluating(arm: Arm) -> Iterator[None]:
    models: list[nn.Module] = []
    with suppress(NotShownError):
        models = arm.models
    modes = {module: module.training for model in models for module in model.modules()}
    for model in models:
        model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def _ledger(first: Compilations, told: Mapping[str, Compilations], about: dict[str, str]) -> Ledger:
    every = [first, *told.values()]
    sites = {
        BREAKS: Counter(dict.fromkeys((line for each in every for line in each.breaks), 1)),
        GIVEN_UP: Counter(line for each in every for line in each.given_up),
        **{f"compiler: compilations {name}": Counter(each.frames) for name, each in told.items()},
    }
    return Ledger(
        about=about,
        counts={GRAPHS: first.graphs} | {name: found.total() for name, found in sites.items()},
        sites={name: dict(found) for name, found in sites.items() if found},
    )
