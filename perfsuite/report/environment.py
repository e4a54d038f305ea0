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


def before_of(run: Run, before: Run | None) -> tuple[Mapping[str, Any] | None, Mapping[str, float]]:
    """Return versions and the machine's state before, as far as there is a before.

    Args:
        run: now.
        before: an earlier run, if there is one.
    """
    if run.against is not None:
        return run.against.get("software") or {}, {}
    if before is None:
        return None, {}
    return {**before.software, "commit": before.commit[:12]}, _state(before)


def compared_with(run: Run, before: Run | None) -> str:
    """Return in words what `environment` compares with."""
    if run.against is not None:
        return f"before: {run.against.get('ref') or 'the same tree, by another interpreter'}"
    if before is None:
        return "Software, and the machine's state when benchmarks ended (medians)."
    note = f"before: the run of {before.started[:16].replace('T', ' ')}, {before.path.name}"
    if run.baseline and before.started not in run.baseline:
        note += "; it is not of the baseline, which verdicts are held against"
    return note


def environment(
    run: Run, then: Mapping[str, Any] | None, then_state: Mapping[str, float]
) -> list[Difference]:
    """Return versions and state, what changed first.

    Args:
        run: now.
        then: versions before, None where nothing is compared.
        then_state: the machine's state before, as far as it is known.
    """
    now = {**run.software} | ({} if run.against is not None else {"commit": run.commit[:12]})
    before = now if then is None else then
    rows = [
        Difference(
            name=name,
            before=_shown(before.get(name)),
            now=_shown(now.get(name)),
            changed=before.get(name) != now.get(name),
        )
        for name in sorted(now.keys() | before.keys())
    ]
    for name, value in _state(run).items():
        was = then_state.get(name)
        rows.append(
            Difference(
                name=name,
                before="" if was is None else f"{was:.4g}",
                now=f"{value:.4g}",
                changed=was is not None and differs(was, value),
            )
        )
    return sorted(rows, key=lambda row: not row.changed)


def _shown(version: object) -> str:
    return "none" if version is None else str(version)


def _state(run: Run) -> dict[str, float]:
    """Return the machine's state when benchmarks ended: medians of what is known, with units."""
    states = [each.state.get("after", {}) for each in run.benchmarks.values()]
    found = {}
    for field, (name, unit) in STATE.items():
        known = [state[field] for state in states if isinstance(state.get(field), int | float)]
        if known:
            found[f"{name} ({unit})" if unit else name] = median(known)
    return found
