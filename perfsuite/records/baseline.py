"""Baselines: the promoted runs of one hardware, and comparing a new run with them."""

import dataclasses
import functools
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import msgspec

from perfsuite.judging.confirmation import compare_gate, environment_gate, red_by_code, searchable
from perfsuite.judging.contamination import Contamination, contamination
from perfsuite.judging.estimates import predicted_ratio
from perfsuite.judging.gates import Outcome, Verdict, missing, not_worse
from perfsuite.judging.hardware import current_key
from perfsuite.judging.spreads import Spread, observed_spread, or_assumed, pooled_spreads
from perfsuite.judging.thresholds import CompareLimits
from perfsuite.records.causes import reasons
from perfsuite.records.commits import of_benchmark, which_commit
from perfsuite.records.git import commits_since
from perfsuite.records.schema import (
    NO_BENCHMARK,
    Benchmark,
    Head,
    Metric,
    Run,
    RunError,
    read_as,
    read_run,
)
from perfsuite.records.wording import counted, software_changes

_COMPARABLE = Contamination()
_HOW = (
    "run `pytest benchmarks --benchmark-json=run.json` a few times and promote the files:"
    " `perfsuite promote run.json ...`"
)

_MOST_NIGHTS = 60  # of the history, which may have thousands


class BaselineError(ValueError):
    """A baseline that is missing or unusable, or a run that must not become one."""


Figure = tuple[str, str]
"""The key of a benchmark, and the name of its metric."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Baseline:
    """The promoted runs of one commit on one hardware; at least one."""

    folder: Path
    runs: tuple[Run, ...]
    nights: tuple[Run, ...] = ()  # later runs that were held against these very ones

    @functools.cached_property
    def spreads(self) -> Mapping[Figure, Spread]:
        """How each figure that is sampled spreads, learnt from all of them together."""
        promoted = _values(self.runs)
        series = [_values(each, unchanged=True) for _, each in groupby(self.nights, _measured_by)]
        return pooled_spreads(
            {
                figure: observed_spread(runs, *(each.get(figure, ()) for each in series))
                for figure, runs in promoted.items()
            }
        )

    @functools.cached_property
    def promoted_spreads(self) -> Mapping[Figure, Spread]:
        """How each figure spreads by the promoted runs alone, which no later night changes."""
        return dataclasses.replace(self, nights=()).spreads

    def config(self, key: str) -> dict[str, Any]:
        """Return what the newest promoted run measured of a benchmark; nothing of a new one."""
        benchmark = self.runs[-1].benchmarks.get(key)
        return {} if benchmark is None else benchmark.config

    def markers(self) -> dict[str, list[str]]:
        """Return the benchmarks that a session should have, with their markers' names."""
        return {key: each.markers for run in self.runs for key, each in run.benchmarks.items()}

    def reasons(
        self, now: Benchmark, software: dict[str, Any], ranks: int, settled: Sequence[Verdict]
    ) -> list[str]:
        """Return what differs between the newest promoted run and `now`, besides the figures.

        And the command that finds the commit, where that may be why `settled` are red.
        """
        run = self.runs[-1]
        if now.key not in run.benchmarks:
            return []
        lines = reasons(
            run.benchmarks[now.key],
            now,
            software=(run.software, software),
            commits=commits_since(run.commit, self.folder),
        )
        # No bisection searches what judges one tree, nor finds what the code is no reason for.
        if "one_tree" in now.markers or not (red := red_by_code(settled)):
            return lines
        suite = self.folder.parents[1]
        searched = of_benchmark(now.key, suite, ranks, searchable(red))
        return [*lines, *which_commit(run.commit, searched, suite)]

    def environment(self, now: Benchmark, software: dict[str, Any]) -> list[str]:
        """Return what is known to differ from the newest promoted run, besides the code."""
        run = self.runs[-1]
        if now.key not in run.benchmarks:
            return []
        then = msgspec.structs.replace(run.benchmarks[now.key], operators=None)
        return reasons(then, now, software=(run.software, software), commits=())

    def contamination(
        self, now: Benchmark, software: dict[str, Any], facts: dict[str, Any]
    ) -> Contamination:
        """Return why `now` is not comparable with what was promoted."""
        promoted = [
            (run.benchmarks[now.key].state, _facts(run.software, run.facts))
            for run in self.runs
            if now.key in run.benchmarks
        ]
        return contamination(now.state, _facts(software, facts), promoted=promoted)

    def summary(self, now: dict[str, Any]) -> list[str]:
        """Return lines that say what is compared with, and what software changed since."""
        newest, count = self.runs[-1], counted(len(self.runs), "promoted run")
        changes = software_changes(newest.software, now)
        head = f"against {count} of {newest.commit[:12]} in {self.folder}"
        return [head, *(f"  changed since: {change}" for change in changes)]


def _facts(software: dict[str, Any], facts: dict[str, Any]) -> dict[str, Any]:
    # It has always been recorded among the software. A driver is no other machine: what a new one
    # changes is the environment's.
    return {**facts, "CPU capability": software.get("cpu_capability")}


def baseline_folder(suite: Path, hardware: str) -> Path:
    """Return where the promoted runs of `hardware` are kept in a suite's folder.

    That is the folder with the newest ones among those of keys by which it used to go, if any.
    """
    folder = suite / "baselines" / hardware
    if any(folder.glob("*.json")):
        return folder
    promoted = folder.parent.glob("*/*.json")
    former = [path for path in promoted if current_key(path.parent.name) == hardware]
    return max(former, key=lambda path: path.name).parent if former else folder


def load_baseline(suite: Path, hardware: str) -> Baseline:
    """Read every promoted run of `hardware`; BaselineError if one is unusable, or there is none."""
    folder = baseline_folder(suite, hardware)
    files = sorted(folder.glob("*.json"))
    if not files:
        others = sorted(path.name for path in folder.parent.glob("*") if path.is_dir())
        known = f" (there are runs of {', '.join(others)})" if others else ""
        raise BaselineError(f"{folder}: no promoted run of this hardware{known}: {_HOW}")
    try:
        runs = sorted(map(read_run, files), key=lambda run: (run.started, run.path))
    except RunError as error:
        raise BaselineError(f"{error}; restore the file, or remove it from the baseline") from None
    for run in runs:
        if not run.benchmarks:
            raise BaselineError(
                f"{run.path}: {NO_BENCHMARK}; restore the file, or remove it from the baseline"
            )
        if run.hardware != hardware:
            raise BaselineError(f"{run.path}: was measured on {run.hardware}, not {hardware}")
    commits = {run.commit for run in runs}
    if len(commits) > 1:
        found = ", ".join(sorted(commit[:12] for commit in commits))
        raise BaselineError(f"{folder}: holds runs of several commits ({found}); keep one's")
    return Baseline(folder=folder, runs=tuple(runs))


def with_nights(baseline: Baseline, folder: Path) -> Baseline:
    """Return the baseline with what past runs below a folder teach about how figures spread.

    Those are taken that were held against its very runs, once where there are several copies, and
    not what cannot be read. They are in order, those of one PyTorch and machine together.
    """
    started = [run.started for run in baseline.runs]
    nights: dict[str, Run] = {}
    for path in sorted(folder.rglob("*.json")):
        try:
            head, _ = read_as(path, Head)
            if head.perfsuite.baseline == started:
                run = read_run(path)
                nights[run.started] = run
        except RunError:
            continue
    latest = [nights[started] for started in sorted(nights)[-_MOST_NIGHTS:]]
    return dataclasses.replace(baseline, nights=tuple(sorted(latest, key=_measured_by)))


def _measured_by(run: Run) -> tuple[str, str]:
    return str(run.software.get("torch")), str(_facts(run.software, run.facts))


def sampled(runs: Iterable[Run]) -> Iterator[tuple[Figure, Benchmark, Metric]]:
    """Yield all figures of runs but those in bytes, which are counted and do not scatter."""
    for run in runs:
        for key, benchmark in run.benchmarks.items():
            for name, metric in benchmark.metrics.items():
                if metric.unit != "B":
                    yield (key, name), benchmark, metric


def _values(runs: Iterable[Run], *, unchanged: bool = False) -> dict[Figure, list[float]]:
    """Return the sampled figures of runs; of `unchanged` nights those that were found to be so."""
    values: dict[Figure, list[float]] = {}
    for figure, each, metric in sampled(runs):
        gates = {verdict.gate: verdict.outcome for verdict in each.verdicts}
        passed = gates.get(compare_gate(figure[1])) is Outcome.PASS
        # A slower or busy machine would teach that such nights are nothing special.
        slower = environment_gate(figure[1]) in gates or each.contamination
        if (passed and not slower) or not unchanged:
            values.setdefault(figure, []).append(metric.value)
    return values


def compare(
    baseline: Baseline,
    now: Benchmark,
    asked: CompareLimits,
    contaminated: Contamination = _COMPARABLE,
) -> tuple[Verdict, ...]:
    """Compare a benchmark's figures with the promoted ones; what only one side has fails."""
    before = [run.benchmarks[now.key] for run in baseline.runs if now.key in run.benchmarks]
    if not before:
        remedy = "new or renamed since the baseline; promote runs that have it"
        return (missing("compare", f"{now.key} is in no promoted run", remedy),)
    for old in before:
        changed = [
            f"{name} {old.config.get(name)!r} -> {now.config.get(name)!r}"
            for name in sorted(old.config.keys() | now.config.keys())
            if old.config.get(name) != now.config.get(name)
        ]
        if changed:
            what = f"measured differently from the baseline: {', '.join(changed)}"
            remedy = "run it as the baseline was, or promote new runs"
            return (missing("compare", what, remedy),)
    names = sorted(now.metrics.keys() | {name for old in before for name in old.metrics})
    return tuple(
        _compare_metric(
            name,
            before,
            now,
            asked,
            contaminated=contaminated,
            learnt=baseline.spreads.get((now.key, name)),
        )
        for name in names
    )


def _compare_metric(
    name: str,
    before: Sequence[Benchmark],
    now: Benchmark,
    asked: CompareLimits,
    *,
    contaminated: Contamination,
    learnt: Spread | None,
) -> Verdict:
    gate = compare_gate(name)
    if name not in now.metrics:
        remedy = "if no other verdict says why, and it is gone for good, promote runs without it"
        return missing(gate, f"{name} was not measured", remedy)
    if any(name not in old.metrics for old in before):
        absent = f"{name} is missing from a promoted run"
        return missing(gate, absent, "promote runs that have it")
    metric, earlier = now.metrics[name], [old.metrics[name] for old in before]
    values = [then.value for then in earlier]
    for then in earlier:
        if then.unit != metric.unit:
            return missing(gate, f"{name}: unit was {then.unit}", "promote new runs")
        if then.better != metric.better:
            return missing(gate, f"{name}: better was {then.better}", "promote new runs")
    # Bytes are counted: what would be assumed is how times scatter.
    assumed = 0.0 if metric.unit == "B" else asked.assumed_spread
    spread = or_assumed(learnt or observed_spread(values), assumed)
    ratio = predicted_ratio(
        metric.value,
        values,
        spread=spread.deviation,
        degrees=spread.degrees,
        # A figure can only be worse in one direction: each end has the confidence by itself.
        confidence=2 * asked.confidence - 1,
    )
    verdict = not_worse(gate, ratio, asked.margin, better=metric.better, runs=len(values), unit="x")
    if metric.unit != "B":
        verdict = contaminated.excuse(verdict)
    change = f"{statistics.median(values):.4g} -> {metric.value:.4g} {metric.unit}"
    return dataclasses.replace(verdict, figure=f"{verdict.figure} ({change})")
