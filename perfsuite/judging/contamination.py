"""Whether a figure may be compared with promoted ones: the same machine, and nobody else at work.

Times of another machine, or beside other work, are not a regression of the code. Whatever is not
known on either side says nothing, neither that it differs nor that it does not.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from perfsuite.judging.gates import Outcome, Verdict

MOST_OTHERS = 0.1
"""Of the cores, that others may use when a run is to be promoted, and later beyond what they did in
most of the promoted runs. A busy loop
is half of two cores, what a quiet machine does by itself is a few per cent, and one core of
sixteen beside a GPU is left alone."""

Facts = Mapping[str, Any]
"""What a machine is, by name; None is unknown."""
_States = Mapping[str, Mapping[str, Any]]  # "before" and "after" a benchmark, as in a run's JSON


@dataclass(frozen=True, slots=True)
class Contamination:
    """Why figures are not comparable with promoted ones, a line each."""

    disturbed: tuple[str, ...] = ()  # by what may be over soon
    elsewhere: tuple[str, ...] = ()  # in what it is another machine

    @property
    def reasons(self) -> list[str]:
        """What disturbed, and then in what it is another machine."""
        return [*self.disturbed, *self.elsewhere]

    @property
    def why(self) -> str:
        """The same as the reason of a verdict."""
        return f"contaminated: {'; '.join(self.reasons)}"

    def excuse(self, verdict: Verdict) -> Verdict:
        """Return what may be said of a figure that was compared all the same.

        Other work makes no step faster, so that what passes beside it passes. On another machine
        nothing can be said.
        """
        if not self.reasons or (verdict.outcome is Outcome.PASS and not self.elsewhere):
            return verdict
        return replace(verdict, outcome=Outcome.INCONCLUSIVE, reason=self.why, word="")


def contamination(
    state: _States, facts: Facts, *, promoted: Sequence[tuple[_States, Facts]]
) -> Contamination:
    """Hold the machine, and its state around a benchmark, against those of the promoted runs.

    Without any it is asked whether the machine was quiet, as it has to be when a run is promoted.
    """
    disturbed = []
    states = [each for each, _ in promoted]
    usual, share = _usual(states, "others_cpu"), _most(state, "others_cpu")
    if share is not None and share > (usual or 0.0) + MOST_OTHERS:
        then = "" if usual is None else f" ({usual:.0%} when promoted)"
        disturbed.append(f"other processes used {share:.0%} of the cores{then}")
    usual, beside = _usual(states, "other_processes"), _most(state, "other_processes")
    # In a container our own process may count as another, but then it always did.
    if beside is not None and usual is not None and beside > usual:
        disturbed.append(f"other processes on the GPU: {beside:g} ({usual:g} when promoted)")
    return Contamination(tuple(disturbed), tuple(_differences(facts, [f for _, f in promoted])))


def _most(state: _States, name: str) -> float | None:
    readings = [reading.get(name) for reading in state.values()]
    return max((value for value in readings if value is not None), default=None)


def _usual(states: Sequence[_States], name: str) -> float | None:
    """Return what most of the promoted runs had; one among them may have been disturbed."""
    known = [most for state in states if (most := _most(state, name)) is not None]
    return statistics.median_low(known) if known else None


def _differences(facts: Facts, promoted: Sequence[Facts]) -> list[str]:
    """Return what differs from all promoted runs that know of it."""
    found = []
    for name, now in facts.items():
        known = [then[name] for then in promoted if then.get(name) is not None]
        if now is not None and known and now not in known:
            found.append(f"{name} {known[-1]} -> {now}")
    return found
