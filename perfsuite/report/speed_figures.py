"""Exhibits of speed: step times, blocks over time, operators, and the history of figures."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from statistics import median

from perfsuite.judging.estimates import median_interval
from perfsuite.records.history import Series
from perfsuite.records.operators import Operator, Profile
from perfsuite.records.schema import Benchmark
from perfsuite.records.wording import short_name
from perfsuite.report import panels
from perfsuite.report.figure import Cell, Exhibit, Number, bars, exhibit, rows_in
from perfsuite.report.raw_figures import Timing, profiles

_BARS = 8
"""Operators that are drawn; the table has all."""


def step_times(timings: Sequence[Timing]) -> list[Exhibit]:
    """Show the step time of every arm, with the interval of its median."""
    drawn: list[tuple[str, float, float, float]] = []
    rows: list[tuple[Cell, ...]] = []
    for timing in timings:
        for arm in timing.arms:
            values_s = timing.values_s(arm)
            if not values_s:
                continue
            found = median_interval(values_s)
            name = timing.name if len(timing.arms) == 1 else f"{timing.name}: {arm}"
            known = math.isfinite(found.high)
            low_s, high_s = (found.low, found.high) if known else (found.value, found.value)
            drawn.append((name, found.value * 1e3, low_s * 1e3, high_s * 1e3))
            ends = [Number(end_s, "s") if known else "unknown" for end_s in (low_s, high_s)]
            counts = (Number(found.n), Number(timing.set_aside(arm)))
            rows.append((name, Number(found.value, "s"), *ends, *counts))
    if not drawn:
        return []
    return [
        exhibit(
            partial(panels.intervals, rows=drawn),
            title="Median by arm",
            caption="Median over blocks, or over processes where two trees were compared, with"
            " its interval at 99 %. An interval over blocks speaks of this one process; another"
            " may differ by more.",
            head=("arm", "median", "low", "high", "values", "blocks set aside"),
            rows=rows,
            height_in=rows_in(len(drawn)),
        )
    ]


def blocks_over_time(timings: Sequence[Timing]) -> list[Exhibit]:
    """Show what was timed, block by block, with those marked that were throttled."""
    exhibits = []
    for timing in timings:
        arms: dict[str, list[tuple[float, float, bool]]] = {arm: [] for arm in timing.arms}
        now_s = 0.0
        for arm, block in timing.turns:
            now_s += block.wall_s * block.steps
            arms[arm].append((now_s, block.step_s * 1e3, bool(block.throttled)))
        turns_s = {
            arm: [block.step_s for name, block in timing.turns if name == arm]
            for arm in timing.arms
        }
        exhibits.append(
            exhibit(
                partial(panels.turns, arms=list(arms.items())),
                title=timing.name,
                caption=_how_timed(timing),
                head=("arm", "blocks", "fastest", "median", "slowest", "throttled"),
                rows=[
                    (
                        arm,
                        Number(len(blocks)),
                        *(Number(f(turns_s[arm]), "s") for f in (min, median, max)),
                        Number(sum(held for *_, held in blocks)),
                    )
                    for arm, blocks in arms.items()
                    if blocks
                ],
            )
        )
    return exhibits


def _how_timed(timing: Timing) -> str:
    if len(timing.arms) == 1:
        return "Blocks one after the other; what throttled the device is crossed."
    order = "Blocks of both, taking turns ABBA, BAAB; throttled ones are crossed"
    processes = len(timing.groups)
    return f"{order}, {processes} pairs of processes." if processes > 1 else f"{order}."


def operators(benchmarks: Sequence[Benchmark], past: Mapping[str, Benchmark]) -> list[Exhibit]:
    """Show where a step's time goes, beside where it went before.

    Args:
        benchmarks: of the run.
        past: the same benchmarks of an earlier run, by key, as far as there are any.
    """
    exhibits = []
    for benchmark in benchmarks:
        before, now = profiles(benchmark)
        if before is None and benchmark.against is None and benchmark.key in past:
            _, before = profiles(past[benchmark.key])
        if now is None:
            continue
        if before is not None and before.clock != now.clock:
            before = None  # a GPU's kernels and a host's operators are no before and after
        sides = {"before": before, "now": now} if before is not None else {"now": now}
        shares = [_shares(side) for side in sides.values()]
        names = sorted(
            {name for side in shares for name in side},
            key=lambda name: -max(side[name].self_s for side in shares if name in side),
        )
        title = f"{short_name(benchmark.key)}: operators"
        exhibits.append(
            bars(
                {
                    name: [side[name].self_s * 1e3 if name in side else None for side in shares]
                    for name in names[:_BARS]
                },
                tuple(sides),
                unit="ms a step",
                title=title,
                caption=f"Time of the {'GPU' if now.clock == 'device' else 'CPU'} in each operator"
                " itself, in a few profiled steps, which take longer than timed ones.",
                head=("operator", *(f"{side} {what}" for what in _OF_OPERATORS for side in sides)),
                rows=[(name, *_operator_cells(name, shares)) for name in names],
            )
        )
    return exhibits


_OF_OPERATORS = ("time", "calls")


def _shares(profile: Profile) -> dict[str, Operator]:
    """Return a profile's operators, with what lies outside of those that have a name."""
    return {
        **profile.operators,
        "all other operators": Operator(self_s=profile.rest_s, calls=math.nan),
        profile.outside: Operator(self_s=profile.outside_s, calls=math.nan),
    }


def _operator_cells(name: str, shares: Sequence[Mapping[str, Operator]]) -> list[Cell]:
    found = [side.get(name) for side in shares]
    times: list[Cell] = ["" if each is None else Number(each.self_s, "s") for each in found]
    calls: list[Cell] = [
        "" if each is None or math.isnan(each.calls) else Number(each.calls) for each in found
    ]
    return [*times, *calls]


def histories(series: Sequence[Series]) -> list[Exhibit]:
    """Show figures run by run, and where they changed for good."""
    return [
        exhibit(
            partial(panels.history, series=each),
            title=f"{short_name(each.key)} {each.name}",
            caption=f"{len(each.points)} runs; a line is the median of a stretch, an upright line"
            " a change.",
            head=("stretch from run", "median", "change", "since"),
            rows=_stretches(each),
        )
        for each in series
    ]


def _stretches(series: Series) -> list[tuple[Cell, ...]]:
    changes = series.changes()
    first = median([p.value for p in series.points[: changes[0].at if changes else None]])
    rows: list[tuple[Cell, ...]] = [(Number(1), Number(first, series.unit), "", "")]
    for change in changes:
        point = series.points[change.at]
        rows.append(
            (
                Number(change.at + 1),
                Number(change.after, series.unit),
                str(change),
                f"{point.started[:10]}, {point.commit[:12]}",
            )
        )
    return rows
