"""Charts of speed: step times, blocks over time, operators, and the history of figures."""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from statistics import median

from perfsuite.judging.estimates import median_interval
from perfsuite.records.history import Series
from perfsuite.records.operators import Operator, Profile
from perfsuite.records.schema import Benchmark
from perfsuite.records.wording import counted, short_name
from perfsuite.report import panels
from perfsuite.report.chart import Cell, Chart, Number, height_of_rows_in
from perfsuite.report.raw_figures import Timing, loads, profiles

_BARS = 8
"""Operators that are drawn; the table has all."""


def step_times(timings: Sequence[Timing]) -> Iterator[Chart]:
    """Show the step time of every arm, with the interval of its median."""
    drawn: list[tuple[str, float, float, float]] = []
    rows: list[tuple[Cell, ...]] = []
    for timing, arm in [(each, arm) for each in timings for arm in each.arms]:
        if not (values_s := timing.values_s(arm)):
            continue
        found = median_interval(values_s)
        name = timing.name if len(timing.arms) == 1 else f"{timing.name}: {arm}"
        known = math.isfinite(found.high)
        low_s, high_s = (found.low, found.high) if known else (found.value, found.value)
        drawn.append((name, found.value * 1e3, low_s * 1e3, high_s * 1e3))
        ends = [Number(end_s, "s") if known else "unknown" for end_s in (low_s, high_s)]
        counts = (Number(found.n), Number(timing.set_aside(arm)))
        rows.append((name, Number(found.value, "s"), *ends, *counts))
    if drawn:
        yield Chart(
            panel=partial(panels.intervals, rows=drawn),
            title="Median by arm",
            caption="Median over blocks, or over processes where two trees were compared, with"
            " its interval at 99 %. An interval over blocks describes this process only; another"
            " process may differ by more.",
            head=("arm", "median", "low", "high", "values", "blocks set aside"),
            rows=rows,
            height_in=height_of_rows_in(len(drawn)),
        )


def host_and_device(benchmarks: Sequence[Benchmark]) -> Iterator[Chart]:
    """Show for how long of a step the host launched, over how long the device took for it."""
    found = [(short_name(each.key), load) for each in benchmarks for load in loads(each)]
    if not found:
        return
    rows = {
        f"{name}: {load.label}": (
            Number(load.host_s, "s"),
            Number(load.device_s, "s"),
            "unknown" if load.kernel_s is None else Number(load.kernel_s, "s"),
            "unknown" if load.launches is None else Number(load.launches),
            "unknown" if load.idle is None else f"{load.idle:.0%}",
            "yes" if load.host_bound else "unknown" if load.host_bound is None else "no",
        )
        for name, load in found
    }
    drawn = {
        f"{name}: {load.label}": [load.host_s * 1e3, load.device_s * 1e3] for name, load in found
    }
    yield Chart(
        panel=partial(panels.bars, rows=drawn, kinds=["host", "device"], unit="ms a step"),
        title="Host and device",
        caption="Until when the host launched, and until when the device computed. Where both are"
        " alike and kernels fill less of it, the device waits for the host.",
        head=("arm", "host", "device", "kernels", "launches", "device idle", "host-bound"),
        rows=[(name, *cells) for name, cells in rows.items()],
        height_in=height_of_rows_in(2 * len(drawn)),
    )


def blocks_over_time(timing: Timing) -> Chart:
    """Show what was timed, block by block; throttled blocks are marked."""
    arms: dict[str, list[tuple[float, float, bool]]] = {arm: [] for arm in timing.arms}
    times_s: dict[str, list[float]] = {arm: [] for arm in timing.arms}
    now_s = 0.0
    for arm, block in timing.blocks:
        now_s += block.wall_s * block.steps
        arms[arm].append((now_s, block.step_s * 1e3, bool(block.throttled)))
        times_s[arm].append(block.step_s)
    order = "Blocks in the order in which they were timed"
    if len(timing.arms) > 1:
        order = "Blocks of both arms, timed in turns (ABBA, BAAB)"
    if len(timing.groups) > 1:
        order += f", in {len(timing.groups)} pairs of processes"
    return Chart(
        panel=partial(panels.turns, arms=list(arms.items())),
        title=timing.name,
        caption=f"{order}. Throttled ones are marked with a cross.",
        head=("arm", "blocks", "fastest", "median", "slowest", "throttled"),
        rows=[
            (
                arm,
                Number(len(blocks)),
                *(Number(f(times_s[arm]), "s") for f in (min, median, max)),
                Number(sum(throttled for *_, throttled in blocks)),
            )
            for arm, blocks in arms.items()
            if blocks
        ],
    )


def operators(benchmark: Benchmark, past: Mapping[str, Benchmark]) -> Iterator[Chart]:
    """Show where a step's time goes, and where it went in an earlier run, by benchmark key."""
    before, now = profiles(benchmark)
    if now is None:
        return
    if before is None and benchmark.against is None and benchmark.key in past:
        _, before = profiles(past[benchmark.key])
    sides = {"now": _operators_of(now)}
    # A GPU's kernels and a host's operators cannot be compared.
    if before is not None and before.clock == now.clock:
        sides = {"before": _operators_of(before), **sides}
    largest_s: dict[str, float] = {}
    for name, operator in (item for side in sides.values() for item in side.items()):
        largest_s[name] = max(operator.self_s, largest_s.get(name, 0.0))
    names = sorted(sorted(largest_s), key=lambda name: -largest_s[name])
    drawn = {
        name: [side[name].self_s * 1e3 if name in side else None for side in sides.values()]
        for name in names[:_BARS]
    }
    idle = "; idle is a GPU that is not profiled" if now.clock == "device" else ""
    yield Chart(
        panel=partial(panels.bars, rows=drawn, kinds=list(sides), unit="ms a step"),
        title=f"{short_name(benchmark.key)}: operators",
        caption=f"Time of the {'GPU' if now.clock == 'device' else 'CPU'} in each operator"
        f" itself, in a few profiled steps, which take longer than timed ones{idle}.",
        head=("operator", *(f"{side} {what}" for what in ("time", "calls") for side in sides)),
        rows=[(name, *_operator_cells(name, sides)) for name in names],
        height_in=height_of_rows_in(len(drawn) * len(sides)),
    )


def _operators_of(profile: Profile) -> dict[str, Operator]:
    """Return a profile's operators, with the time outside of those that have a name."""
    return {
        **profile.operators,
        "all other operators": Operator(self_s=profile.rest_s, calls=math.nan),
        profile.outside: Operator(self_s=profile.outside_s, calls=math.nan),
    }


def _operator_cells(name: str, sides: Mapping[str, Mapping[str, Operator]]) -> list[Cell]:
    found = [side.get(name) for side in sides.values()]
    times: list[Cell] = ["" if each is None else Number(each.self_s, "s") for each in found]
    calls: list[Cell] = [
        "" if each is None or math.isnan(each.calls) else Number(each.calls) for each in found
    ]
    return [*times, *calls]


def history(series: Series) -> Chart:
    """Show a figure run by run, and its lasting changes."""
    changes = series.changes()
    first = median([p.value for p in series.points[: changes[0].at if changes else None]])
    rows: list[tuple[Cell, ...]] = [(Number(1), Number(first, series.unit), "", "")]
    for change in changes:
        point = series.points[change.at]
        since = f"{point.started[:10]}, {point.commit[:12]}"
        after = Number(change.after, series.unit)
        rows.append((Number(change.at + 1), after, str(change), since))
    return Chart(
        panel=partial(panels.history, series=series),
        title=f"{short_name(series.key)} {series.name}",
        caption=f"{counted(len(series.points), 'run')}. A horizontal line is the median of the"
        " runs between two changes, a vertical line a lasting change.",
        head=("from run", "median", "change", "since"),
        rows=rows,
    )
