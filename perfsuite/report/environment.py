"""What surrounds a run, before and now: versions, the commit, and the machine's state."""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from perfsuite.records.causes import STATE, differs
from perfsuite.records.schema import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One thing of the environment, before and now."""

    name: str
    before: str
    now: str
    changed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """Versions and the machine's state."""

    note: str  # what they are compared with
    compared: bool  # whether they are
    rows: tuple[Difference, ...]  # what changed first

    @property
    def differences(self) -> list[Difference]:
        """The rows that changed since the run before."""
        return [row for row in self.rows if row.changed]


def environment_of(run: Run, before: Run | None) -> Environment:
    """Return the environment of a run: beside an earlier one, or of two trees beside each other."""
    now: dict[str, Any] = dict(run.software)
    then, then_state = now, {}
    if run.against is not None:
        then = run.against.get("software") or {}
        note = f"before: {run.against.get('ref') or 'the same tree, by another interpreter'}"
    else:
        now["commit"] = run.commit[:12]
        note = "Software, and the machine's state when benchmarks ended (medians)."
        if before is not None:
            then, then_state = before.software | {"commit": before.commit[:12]}, _state(before)
            note = f"before: the run of {before.started[:16].replace('T', ' ')}, {before.path.name}"
            if run.baseline and before.started not in run.baseline:
                note += "; it is not part of the baseline that verdicts compare with"
    rows = [*_versions(then, now), *_states(then_state, _state(run))]
    return Environment(
        note=note,
        compared=run.against is not None or before is not None,
        rows=tuple(sorted(rows, key=lambda row: not row.changed)),
    )


def _versions(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[Difference]:
    return [
        Difference(
            name=name,
            before=_shown(then.get(name)),
            now=_shown(now.get(name)),
            changed=then.get(name) != now.get(name),
        )
        for name in sorted(now.keys() | then.keys())
    ]


def _shown(version: object) -> str:
    return "none" if version is None else str(version)


def _states(then: Mapping[str, float], now: Mapping[str, float]) -> list[Difference]:
    return [
        Difference(
            name=name,
            before=f"{then[name]:.4g}" if name in then else "",
            now=f"{value:.4g}",
            changed=name in then and differs(then[name], value),
        )
        for name, value in now.items()
    ]


def _state(run: Run) -> dict[str, float]:
    """Return the machine's state when benchmarks ended: medians of what is known, with units."""
    states = [each.state.get("after", {}) for each in run.benchmarks.values()]
    found = {}
    for field, (name, unit) in STATE.items():
        known = [state[field] for state in states if isinstance(state.get(field), int | float)]
        if known:
            found[f"{name} ({unit})" if unit else name] = median(known)
    return found
