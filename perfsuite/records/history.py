"""The history of a suite: run files as series of figures, and their lasting changes."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from ruptures import KernelCPD
from scipy.ndimage import median_filter

from perfsuite.judging.hardware import current_key
from perfsuite.records.schema import (
    NO_BENCHMARK,
    NOT_OF_ONE_TREE,
    Metric,
    RunError,
    RunFile,
    read_as,
)
from perfsuite.records.wording import counted, short_name, software_changes

PENALTY = 4.0
"""Of a further change, in log(n) times the noise's variance: on 60 runs of the same code one
series in a hundred shows a change that is not there (studies/history_study.py)."""
NEIGHBOURS, FARTHEST = 7, 2.5
"""A run further than so many deviations from the median of its neighbours is an outlier, and is
moved to that distance: two outliers would otherwise look like a change."""
LEAST_RUNS = 3
"""Before and after a change of what scatters; fewer may be an outlier."""


class HistoryError(RunError):
    """Run files that have no history to show."""


class _Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What is read of a benchmark; all else in the file is skipped, which takes no time."""

    key: str
    metrics: dict[str, Metric]
    config: msgspec.Raw
    contamination: list[str] = []


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """The figure of one run, which started at a time in ISO 8601."""

    value: float
    started: str
    commit: str
    software: Mapping[str, Any]
    path: Path


_Measured = tuple[Point, Metric, bytes]
"""A point, its metric, and the config that it was measured with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A lasting change of a series.

    Attributes:
        before, after: medians of the stretches on either side, in the series' unit.
        between: what differs in software between the runs on either side, a line each.
    """

    at: int  # index of the first point after it
    before: float
    after: float
    worse: bool  # whether the figure is worse after it
    between: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.after / self.before - 1:+.1%}, {'worse' if self.worse else 'better'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """The figure `name` of the benchmark `key`, run by run, the oldest first."""

    key: str
    name: str
    unit: str
    better: str  # "lower" or "higher"
    points: tuple[Point, ...]  # of the runs that measured it as the newest did
    left_out: int  # how many runs measured it differently (another batch size, say)
    contaminated: int = 0  # how many more were measured on a busy or another machine

    def changes(self) -> tuple[Change, ...]:
        """Return the lasting changes, the oldest first."""
        values = [point.value for point in self.points]
        at = change_points(values)
        found = []
        for start, index, end in zip([0, *at], at, [*at[1:], len(values)], strict=False):
            then, now = self.points[index - 1], self.points[index]
            before, after = median(values[start:index]), median(values[index:end])
            found.append(
                Change(
                    at=index,
                    before=before,
                    after=after,
                    worse=(after > before) is (self.better == "lower"),
                    between=tuple(software_changes(then.software, now.software)),
                )
            )
        return tuple(found)


def change_points(values: Sequence[float]) -> list[int]:
    """Return the indices at which a series of positive values shows a lasting change.

    The logarithm is divided into segments with the least penalised squares around their means
    (Killick, Fearnhead and Eckley, J. Am. Stat. Assoc. 107, 2012). The variance of the noise is
    that of neighbours' differences, which no change moves by much.

    Raises:
        HistoryError: a value is not finite and positive.
    """
    if not all(0 < value < math.inf for value in values):
        raise HistoryError("a series has values that are not finite and positive")
    return list(_change_points(tuple(values)))


@lru_cache(maxsize=256)
def _change_points(values: tuple[float, ...]) -> list[int]:
    """Find them once for each series, which is both described and drawn."""
    if len(values) < 2 * LEAST_RUNS:
        return []
    logs = np.log(np.asarray(values, dtype=np.float64))
    noise = _noise(logs)
    if noise == 0:  # counted figures, such as bytes: any change is one
        return [at for at in range(1, len(logs)) if logs[at] != logs[at - 1]]
    middle = median_filter(logs, size=NEIGHBOURS, mode="nearest")
    drawn_in = middle + np.clip(logs - middle, -FARTHEST * noise, FARTHEST * noise)
    search = KernelCPD(kernel="linear", min_size=LEAST_RUNS).fit(drawn_in[:, None])
    found: list[int] = search.predict(pen=PENALTY * math.log(len(logs)) * noise**2)
    return found[:-1]


def _noise(logs: NDArray[np.float64]) -> float:
    """Return the standard deviation of a point, robustly, from the differences of neighbours."""
    steps = np.diff(logs)
    return float(np.median(np.abs(steps - np.median(steps)))) * 1.4826 / math.sqrt(2)


def read_history(
    paths: Iterable[Path], hardware: str | None = None
) -> tuple[list[Series], list[str]]:
    """Read run files; return their series, and which files were skipped and why.

    Raises:
        HistoryError: there is no run, or there are runs of several hardware and no key of one
            was given.
    """
    hardware = None if hardware is None else current_key(hardware)
    found: dict[tuple[str, str], list[_Measured]] = {}
    contaminated: Counter[tuple[str, str]] = Counter()
    seen: set[str] = set()
    skipped: list[str] = []
    for path in paths:
        try:
            file, _ = read_as(path, RunFile[_Figures])
        except RunError as error:
            skipped.append(str(error))
            continue
        head, records = file.perfsuite, file.records()
        if head.against is not None or not records:
            skipped.append(f"{path}: {NOT_OF_ONE_TREE if records else NO_BENCHMARK}")
            continue
        seen.add(head.hardware.key)
        if hardware is not None and head.hardware.key != hardware:
            continue
        for record in records:
            config = _canonical(bytes(record.config))
            for name, metric in record.metrics.items():
                if record.contamination and metric.unit != "B":
                    contaminated[record.key, name] += 1
                    continue
                point = Point(
                    value=metric.value,
                    started=head.started,
                    commit=file.commit_info.id,
                    software=head.software,
                    path=path,
                )
                found.setdefault((record.key, name), []).append((point, metric, config))
    if hardware is None and len(seen) > 1:
        keys = ", ".join(sorted(seen))
        raise HistoryError(f"runs of several hardware ({keys}): choose one with --hardware")
    skipped += [
        f"{short_name(key)} {name}: all its runs were contaminated"
        for key, name in sorted(contaminated.keys() - found.keys())
    ]
    if not found:
        what = f" of {hardware}" if hardware is not None else ""
        why = f"; {len(skipped)} files were skipped, such as {skipped[0]}" if skipped else ""
        raise HistoryError(f"no run{what}{why}")
    series = [
        _series(key, name, runs, contaminated=contaminated[key, name])
        for (key, name), runs in sorted(found.items())
    ]
    return series, skipped


@lru_cache(maxsize=4096)
def _canonical(config: bytes) -> bytes:
    """Return a config as it would be written here: how its file was laid out says nothing."""
    return msgspec.json.encode(msgspec.json.decode(config), order="sorted")


def _series(key: str, name: str, runs: list[_Measured], *, contaminated: int) -> Series:
    runs = sorted(runs, key=lambda run: (run[0].started, run[0].path))
    _, newest, config = runs[-1]
    alike = [
        point
        for point, metric, its_config in runs
        if (metric.unit, metric.better, its_config) == (newest.unit, newest.better, config)
    ]
    return Series(
        key=key,
        name=name,
        unit=newest.unit,
        better=newest.better,
        points=tuple(alike),
        left_out=len(runs) - len(alike),
        contaminated=contaminated,
    )


def tell(series: Series) -> list[str]:
    """Return a series in words: its newest figure, and a line for each change."""
    name, runs = short_name(series.key), counted(len(series.points), "run")
    newest = series.points[-1].value
    lines = [f"{name} {series.name}: {runs}, {newest:.4g} {series.unit} now"]
    if series.left_out:
        lines[0] += f" ({series.left_out} that measured it differently are left out)"
    if series.contaminated:
        lines[0] += f" ({series.contaminated} that were contaminated are left out)"
    for change in series.changes():
        point, last = series.points[change.at], series.points[change.at - 1]
        lines.append(
            f"  {change}, from run {change.at + 1} on"
            f" ({point.started[:10]}, {last.commit[:12]} -> {point.commit[:12]}):"
            f" {change.before:.4g} -> {change.after:.4g} {series.unit}"
        )
        lines += [f"    {difference}" for difference in change.between]
    return lines
