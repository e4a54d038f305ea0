"""The history of a suite: run files as series of figures, and where those changed for good."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from ruptures import KernelCPD
from scipy.ndimage import median_filter

from perfsuite.records.schema import Metric, RunError, short_name, software_changes

PENALTY = 4.0
"""Of a further change, in log(n) times the noise's variance: on 60 runs of the same code one
series in a hundred shows a change that is none (studies/history_study.py)."""
NEIGHBOURS, FARTHEST = 7, 2.5
"""A run further than so many deviations from the median of its neighbours is a stray, and counts
as no further: squares would otherwise take two strays for a change."""
LEAST_RUNS = 3
"""Before and after a change of what scatters; fewer are not told from a stray."""


class HistoryError(RunError):
    """Run files of which no history can be told."""


class _Hardware(msgspec.Struct):
    key: str


class _Section(msgspec.Struct):
    hardware: _Hardware
    started: str
    software: dict[str, Any]
    against: dict[str, Any] | None = None


class _Record(msgspec.Struct):
    key: str
    metrics: dict[str, Metric]
    config: msgspec.Raw


class _Extra(msgspec.Struct):
    perfsuite: _Record | None = None


class _Entry(msgspec.Struct):
    extra_info: _Extra


class _Commit(msgspec.Struct):
    id: str


class _File(msgspec.Struct):
    """What is read of a run file; all else in it is passed over, which takes no time."""

    perfsuite: _Section
    commit_info: _Commit
    benchmarks: Annotated[list[_Entry], msgspec.Meta(min_length=1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One run's figure.

    Attributes:
        value: in the series' unit.
        started: of the run, in ISO 8601.
        commit: of the measured tree.
        software: versions.
        path: of the run file.
    """

    value: float
    started: str
    commit: str
    software: Mapping[str, Any]
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A series that changed for good.

    Attributes:
        at: index of the first point after it.
        before, after: medians of the stretches on either side, in the series' unit.
        between: what differs in software between the runs on either side, a line each.
    """

    at: int
    before: float
    after: float
    between: tuple[str, ...]

    @property
    def ratio(self) -> float:
        """After over before."""
        return self.after / self.before


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One figure of one benchmark, run by run, the oldest first.

    Attributes:
        key: of the benchmark.
        name: of the figure.
        unit: of its values.
        better: "lower" or "higher".
        points: of the runs that measured it as the newest did.
        set_aside: runs that measured it otherwise (another batch size, say).
    """

    key: str
    name: str
    unit: str
    better: str
    points: tuple[Point, ...]
    set_aside: int

    def changes(self) -> tuple[Change, ...]:
        """Return where the series changed for good, the oldest first."""
        values = [point.value for point in self.points]
        at = change_points(values)
        edges = [0, *at, len(values)]
        found = []
        for place, index in enumerate(at, start=1):
            then, now = self.points[index - 1], self.points[index]
            found.append(
                Change(
                    at=index,
                    before=median(values[edges[place - 1] : index]),
                    after=median(values[index : edges[place + 1]]),
                    between=tuple(software_changes(dict(then.software), dict(now.software))),
                )
            )
        return tuple(found)

    def worse(self, change: Change) -> bool:
        """Tell whether a change is for the worse."""
        return (change.ratio > 1) is (self.better == "lower")


def change_points(values: Sequence[float]) -> list[int]:
    """Return the indices at which a series of positive values changed for good.

    Segments of the logarithm's mean at least penalised squares (Killick, Fearnhead and Eckley,
    J. Am. Stat. Assoc. 107, 2012), with the noise's variance from neighbours' differences,
    which no change moves by much.

    Raises:
        HistoryError: a value is not finite and positive.
    """
    if not all(0 < value < math.inf for value in values):
        raise HistoryError("a series has values that are not finite and positive")
    return list(_change_points(tuple(values)))


@lru_cache(maxsize=256)
def _change_points(values: tuple[float, ...]) -> list[int]:
    """Find them, once a series: it is told and drawn from the same."""
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
    """Read run files; return their series, and which files were passed over and why.

    Args:
        paths: of run files.
        hardware: key of the hardware whose runs are wanted; needed where there are several.

    Raises:
        HistoryError: there is no run, or there are runs of several hardware and none was chosen.
    """
    found: dict[tuple[str, str], list[tuple[Point, Metric, bytes]]] = {}
    seen: set[str] = set()
    skipped: list[str] = []
    for path in paths:
        try:
            file = msgspec.json.decode(path.read_bytes(), type=_File)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            skipped.append(f"{path}: {error}")
            continue
        if file.perfsuite.against is not None:
            skipped.append(f"{path}: compares two trees, and is no run of one")
            continue
        seen.add(file.perfsuite.hardware.key)
        if hardware is not None and file.perfsuite.hardware.key != hardware:
            continue
        for record in (entry.extra_info.perfsuite for entry in file.benchmarks):
            for name, metric in ({} if record is None else record.metrics).items():
                assert record is not None  # or it would have no metrics
                point = Point(
                    value=metric.value,
                    started=file.perfsuite.started,
                    commit=file.commit_info.id,
                    software=file.perfsuite.software,
                    path=path,
                )
                figure = (point, metric, _canonical(bytes(record.config)))
                found.setdefault((record.key, name), []).append(figure)
    if hardware is None and len(seen) > 1:
        raise HistoryError(
            f"runs of several hardware ({', '.join(sorted(seen))}): choose one with --hardware"
        )
    if not found:
        what = f" of {hardware}" if hardware is not None else ""
        why = f"; {len(skipped)} files were passed over, such as {skipped[0]}" if skipped else ""
        raise HistoryError(f"no run{what}{why}")
    return [_series(key, name, runs) for (key, name), runs in sorted(found.items())], skipped


@lru_cache(maxsize=4096)
def _canonical(config: bytes) -> bytes:
    """Return a config as it would be written here: how its file was laid out says nothing."""
    return msgspec.json.encode(msgspec.json.decode(config), order="sorted")


def _series(key: str, name: str, runs: list[tuple[Point, Metric, bytes]]) -> Series:
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
        set_aside=len(runs) - len(alike),
    )


def tell(series: Series) -> list[str]:
    """Return a series in words: how it stands, and a line for each change."""
    name = short_name(series.key)
    newest = series.points[-1].value
    lines = [f"{name} {series.name}: {len(series.points)} runs, {newest:.4g} {series.unit} now"]
    if series.set_aside:
        lines[0] += f" ({series.set_aside} that measured it otherwise set aside)"
    for change in series.changes():
        point, last = series.points[change.at], series.points[change.at - 1]
        word = "worse" if series.worse(change) else "better"
        lines.append(
            f"  {change.ratio - 1:+.1%}, {word}, from run {change.at + 1} on"
            f" ({point.started[:10]}, {last.commit[:12]} -> {point.commit[:12]}):"
            f" {change.before:.4g} -> {change.after:.4g} {series.unit}"
        )
        lines += [f"    {difference}" for difference in change.between]
    return lines
