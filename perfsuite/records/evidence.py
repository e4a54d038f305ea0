"""What is known of a machine: promoted runs and past ones, as the scatter of each figure."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import get_args

import msgspec

from perfsuite.judging.advice import Known, deviation, night_scatter, pair_scatter
from perfsuite.judging.blocks import Block
from perfsuite.judging.confirmation import compare_gate
from perfsuite.judging.gates import Outcome
from perfsuite.judging.interleaving import Duet
from perfsuite.judging.spreads import Spread, observed_spread, or_assumed, pooled_spreads
from perfsuite.judging.thresholds import FILE_NAME, Gate, Thresholds, load_thresholds
from perfsuite.records.baseline import (
    Baseline,
    BaselineError,
    Figure,
    baseline_folder,
    load_baseline,
    sampled,
    with_nights,
)
from perfsuite.records.history import change_points
from perfsuite.records.schema import Benchmark, Head, Metric, Run, RunError, read_as, read_run
from perfsuite.records.wording import gate_name, short_name

_FEW = 2.0  # degrees of freedom, as in `or_assumed`
_MOST_RUNS = 200  # of a history, the newest: each is read whole


class _TakenTurns(msgspec.Struct, frozen=True, kw_only=True):
    order: str
    blocks: list[Block]

    def ratio(self) -> float:
        """Return after over before, as it was judged; ValueError where there are no turns."""
        return Duet.of_turns(self.order, self.blocks).point("B", over="A")


class _MeasuredSide(msgspec.Struct, frozen=True, kw_only=True):
    metrics: dict[str, Metric]


class _PairOfProcesses(msgspec.Struct, frozen=True, kw_only=True):
    turns: dict[str, _TakenTurns]
    before: _MeasuredSide
    after: _MeasuredSide

    def ratios(self) -> dict[str, float]:
        """Return after over before, by the name of the figure; of bytes there is no scatter."""
        both = self.before.metrics.keys() & self.after.metrics.keys()
        found = {
            name: self.after.metrics[name].value / self.before.metrics[name].value
            for name in both
            if self.before.metrics[name].unit != "B"
        }
        return found | {name: turns.ratio() for name, turns in self.turns.items()}

    def took_s(self) -> float:
        """Return about how long it took: half as long to start as to take turns."""
        blocks = [block for turns in self.turns.values() for block in turns.blocks]
        return 1.5 * sum(block.steps * block.wall_s for block in blocks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All that is known of one machine.

    Attributes:
        promoted, nights: how many runs it rests on.
        figures: what scatters; what is counted in bytes does not.
        never: gates that no run has evaluated, and why, a line each.
        skipped: files that could not be read, and why.
    """

    hardware: str
    thresholds: Thresholds
    promoted: int
    nights: int
    figures: list[Known]
    never: list[str]
    skipped: list[str]


def read_evidence(suite: Path, folder: Path, hardware: str | None) -> Evidence:
    """Read the promoted runs of a suite and what is below a folder.

    Raises:
        BaselineError: there is nothing of this hardware, or of several and none was chosen.
        ThresholdsError: the suite's thresholds cannot be used.
    """
    paths, skipped = _by_hardware(folder)
    baselines = baseline_folder(suite, "")
    keys = {path.parent.name for path in baselines.glob("*/*.json")} | paths.keys()
    if hardware is None:
        if len(keys) > 1:
            raise BaselineError(
                f"runs of several hardware ({', '.join(sorted(keys))}): choose one with --hardware"
            )
        hardware = min(keys, default=None)
    if hardware not in keys:
        of = f" of {hardware}" if hardware else ""
        raise BaselineError(
            f"nothing is known{of}: no run is promoted in {baselines}, and none is in {folder}"
        )
    thresholds = load_thresholds(suite / FILE_NAME, hardware)
    baseline = None
    if any(baseline_folder(suite, hardware).glob("*.json")):
        baseline = with_nights(load_baseline(suite, hardware), folder)
    past = []
    for path in paths.get(hardware, [])[-_MOST_RUNS:]:
        try:
            past.append(read_run(path))
        except RunError as error:
            skipped.append(str(error))
    promoted = [] if baseline is None else list(baseline.runs)
    nights = [run for run in past if run.against is None]
    return Evidence(
        hardware=hardware,
        thresholds=thresholds,
        promoted=len(promoted),
        nights=len(nights),
        figures=_figures(baseline, nights, past, thresholds),
        never=_never_evaluated([*promoted, *past]),
        skipped=skipped,
    )


def _by_hardware(folder: Path) -> tuple[dict[str, list[Path]], list[str]]:
    """Return run files by hardware, the oldest first, and why others are left out."""
    found: dict[str, list[tuple[str, Path]]] = defaultdict(list)
    skipped = []
    for path in folder.rglob("*.json"):
        try:
            head, _ = read_as(path, Head)
        except RunError as error:
            skipped.append(str(error))
            continue
        found[head.perfsuite.hardware.key].append((head.perfsuite.started, path))
    return {key: [path for _, path in sorted(runs)] for key, runs in found.items()}, skipped


def _figures(
    baseline: Baseline | None, nights: Sequence[Run], past: Sequence[Run], asked: Thresholds
) -> list[Known]:
    promoted = [] if baseline is None else list(baseline.runs)
    newest = {figure: benchmark for figure, benchmark, _ in sampled([*nights, *promoted])}
    values, by_night = (_values(runs, newest) for runs in (promoted, nights))
    between = pooled_spreads(
        {figure: observed_spread(runs) for figure, runs in values.items() if runs}
    )
    sessions, pair_s = _pairs(past)
    pairs = pooled_spreads(
        {
            figure: spread
            for figure, ratios in sessions.items()
            if (spread := pair_scatter(ratios)) is not None
        }
    )
    learnt = {} if baseline is None else baseline.spreads
    unknown, assumed = Spread(0.0, 0.0), asked.compare.assumed_spread
    found = []
    for (key, name), series in sorted(by_night.items()):
        figure = (key, name)
        apart = night_scatter(series, change_points(series))
        own = between.get(figure, unknown)
        if own.degrees < _FEW and apart is not None:
            own = apart
        known = Known(
            name=f"{short_name(key)} {name}",
            within=_within([*promoted, *nights], key) if name == "step_s" else None,
            between=or_assumed(own, assumed),
            nights=None if apart is None else apart.deviation,
            screened=or_assumed(learnt.get(figure, unknown), assumed),
            runs=len(values[figure]),
            pairs=pairs.get(figure),
            pair_s=pair_s.get(key, _guessed_s(newest[figure])),
            guessed=key not in pair_s,
        )
        found.append(known)
    return found


def _values(runs: Iterable[Run], newest: Mapping[Figure, Benchmark]) -> dict[Figure, list[float]]:
    """Return each figure of the runs that measured it as the newest did, on a quiet machine."""
    values: dict[Figure, list[float]] = {figure: [] for figure in newest}
    for figure, each, metric in sampled(runs):
        like = newest[figure]
        alike = each.config == like.config and metric.unit == like.metrics[figure[1]].unit
        if alike and not each.contamination:
            values[figure].append(metric.value)
    return values


def _within(runs: Iterable[Run], key: str) -> float | None:
    """Return how blocks scatter in a process, the median of those that are known."""
    found = []
    for run in runs:
        if key not in run.benchmarks:
            continue
        try:
            raw = run.benchmarks[key].raw.get("blocks", [])
            times_s = [block.step_s for block in msgspec.convert(raw, list[Block])]
        except msgspec.ValidationError:
            continue
        if len(times_s) > 2 and min(times_s) > 0:
            found.append(deviation([math.log(time_s) for time_s in times_s]))
    return median(found) if found else None


def _guessed_s(benchmark: Benchmark) -> float | None:
    """Return what a pair of processes may take, None if nothing was warmed up.

    Each side makes a model and warms up; then they take turns for about twice as long.
    """
    try:
        warm_ups = [arm["warm_up"] for arm in benchmark.arms.values() if "warm_up" in arm]
        blocks = [each for part in warm_ups for each in msgspec.convert(part, list[Block])]
    except (msgspec.ValidationError, TypeError):
        return None
    return 1.0 + 6 * sum(each.steps * each.wall_s for each in blocks) if blocks else None


def _pairs(runs: Iterable[Run]) -> tuple[dict[Figure, list[list[float]]], dict[str, float]]:
    """Return the ratios of pairs of processes, a list for each session, and what a pair takes."""
    ratios: dict[Figure, list[list[float]]] = defaultdict(list)
    took_s: dict[str, list[float]] = defaultdict(list)
    for run in runs:
        for key, benchmark in run.benchmarks.items():
            confirmed = benchmark.confirmation
            turns = benchmark.against if confirmed is None else confirmed.turns
            try:
                pairs = msgspec.convert((turns or {}).get("restarts", []), list[_PairOfProcesses])
                found = [pair.ratios() for pair in pairs]
            except (
                msgspec.ValidationError,
                ValueError,
                KeyError,
            ):  # damaged, or of another version
                continue
            if not pairs:
                continue
            for name in set.intersection(*(set(each) for each in found)):
                ratios[key, name].append([each[name] for each in found])
            known = 0.0 if confirmed is None else confirmed.took_s / len(pairs)
            took_s[key].append(known or median(pair.took_s() for pair in pairs))
    return ratios, {key: median(each) for key, each in took_s.items() if median(each) > 0}


def _never_evaluated(runs: Iterable[Run]) -> list[str]:
    """Return the gates that said neither PASS nor FAIL in any run, a line each."""
    said: dict[tuple[str, str], set[Outcome]] = defaultdict(set)
    why: dict[tuple[str, str], str] = {}
    for run in runs:
        for key, benchmark in run.benchmarks.items():
            for verdict in benchmark.verdicts:
                said[key, verdict.gate].add(verdict.outcome)
                why[key, verdict.gate] = verdict.explanation
    evaluated = {gate for gate, outcomes in said.items() if outcomes & {Outcome.PASS, Outcome.FAIL}}
    lines = []
    for (key, gate), outcomes in sorted(said.items()):
        if {(key, gate), (key, compare_gate(gate))} & evaluated:
            continue
        always = " or ".join(sorted(outcomes))
        reason = f" ({why[key, gate]})" if why[key, gate] else ""
        lines.append(f"{gate_name(key, gate)}: always {always}{reason}")
    families = {gate.partition(" ")[0] for _, gate in said}
    absent = [gate for gate in get_args(Gate) if gate not in families]
    return lines + [f"in no run: {', '.join(absent)}"] * bool(absent)
