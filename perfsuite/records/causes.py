"""Why a figure may have moved: what differs between two measurements besides the figure."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from perfsuite.judging.blocks import Block
from perfsuite.judging.confirmation import SOFTWARE
from perfsuite.judging.contamination import MOST_OTHERS
from perfsuite.judging.stalls import told
from perfsuite.records.operators import explain
from perfsuite.records.schema import Benchmark
from perfsuite.records.wording import counted, software_changes

_LEAST_CHANGE = 0.05  # of a clock or a temperature; less explains nothing
OTHERS = "others_cpu"
STATE = {
    "sm_mhz": ("GPU clock", "MHz"),
    "memory_mhz": ("memory clock", "MHz"),
    "cpu_mhz": ("CPU clock", "MHz"),
    "temperature_c": ("temperature", "°C"),
    "power_w": ("power", "W"),
    "load_1min": ("load", ""),
    "other_processes": ("other processes on the GPU", ""),
    OTHERS: ("share of the cores that others used", ""),
}
_COMMITS = 5


def reasons(
    before: Benchmark,
    after: Benchmark,
    *,
    software: tuple[Mapping[str, Any], Mapping[str, Any]],
    commits: Sequence[str],
    stalls: Sequence[str] = (),
) -> list[str]:
    """Return what differs between two measurements of a benchmark; the newest commit first.

    Where it is `stalls`, or their blocks show that, no operator is named: a profile of a few
    steps does not hold them.
    """
    lines = list(stalls)
    if not lines and (said := told(*(timed_blocks(each) for each in (before, after)))):
        lines = [f"{said}; no operator is named"]
    if not lines and before.operators is not None and after.operators is not None:
        lines += explain(before.operators, after.operators, ratio=_ratio(before, after))
    lines += [f"{SOFTWARE}{change}" for change in software_changes(*software)]
    lines += [f"machine: {change}" for change in _state_changes(before, after)]
    if commits:
        lines.append(f"{counted(len(commits), 'commit')} between:")
        lines += [f"  {commit}" for commit in commits[:_COMMITS]]
        if len(commits) > _COMMITS:
            lines.append(f"  and {len(commits) - _COMMITS} more")
    return lines


def _ratio(before: Benchmark, after: Benchmark) -> float | None:
    """Return how many times longer kernels take now, or a step where those were not measured."""
    for name in ("kernel_s", "step_s"):
        then, now = (each.metrics.get(name) for each in (before, after))
        if then is not None and now is not None:
            return now.value / then.value
    return None


def timed_blocks(benchmark: Benchmark) -> list[Block]:
    """Return the blocks that a benchmark timed, of two arms the second's; none of another shape."""
    raw = benchmark.raw
    try:
        if "duet" not in raw:
            return msgspec.convert(raw.get("blocks", []), list[Block])
        pairs = zip(raw["duet"]["order"], raw["duet"]["blocks"], strict=True)
        return msgspec.convert([block for letter, block in pairs if letter == "B"], list[Block])
    except (
        KeyError,
        TypeError,
        ValueError,
        msgspec.ValidationError,
    ):  # a suite may keep anything under these names
        return []


def differs(then: float, now: float) -> bool:
    """Tell whether two readings of the machine's state differ by enough to explain anything."""
    return abs(now - then) > _LEAST_CHANGE * max(then, now)


def _state_changes(before: Benchmark, after: Benchmark) -> list[str]:
    """Return what of the machine's state differs, as it was when the benchmark ended."""
    sides = [each.state.get("after", {}) for each in (before, after)]
    changes = []
    for field, (name, unit) in STATE.items():
        then, now = (side.get(field) for side in sides)
        if then is None or now is None:
            continue
        if field == OTHERS:  # a share: how many times as much of next to nothing explains nothing
            if abs(now - then) > MOST_OTHERS:
                changes.append(f"{name} {then:.0%} -> {now:.0%}")
        elif differs(then, now):
            changes.append(f"{name} {then:g} -> {now:g} {unit}".rstrip())
    return changes
