"""What the report of a run says, before it is laid out: verdicts, charts, environment."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from perfsuite.judging.gates import Outcome, Verdict
from perfsuite.records.history import Series, read_history, tell
from perfsuite.records.schema import Run, RunError, read_run
from perfsuite.records.wording import counted, gate_name, short_name
from perfsuite.report.ceiling_charts import device_ceilings, shares_of_ceiling
from perfsuite.report.chart import Chart
from perfsuite.report.environment import Environment, environment_of
from perfsuite.report.lever_charts import levers_tried
from perfsuite.report.rank_charts import scaling_of_ranks, times_of_ranks
from perfsuite.report.raw_figures import timings
from perfsuite.report.speed_charts import (
    blocks_over_time,
    history,
    host_and_device,
    operators,
    step_times,
)
from perfsuite.report.training_charts import loss_curves, loss_scales, memory_use

_RUNS = 365
"""Of a history that are read; older ones are not."""
_LEAST_RUNS = 3
"""Of a figure whose history is shown."""
_MARKS = {
    Outcome.PASS: "🟢",
    Outcome.FAIL: "🔴",
    Outcome.INCONCLUSIVE: "🟡",
    Outcome.NOT_GATED: "⚪",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictRow:
    """A line of the table of verdicts."""

    name: str  # of benchmark and gate
    verdict: Verdict  # or what stands for it where a benchmark ended without one
    reasons: Sequence[str] = ()  # what accounts for a change, a line each

    @property
    def mark(self) -> str:
        """A coloured dot."""
        return _MARKS[self.verdict.outcome]


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspicion:
    """A figure that the comparison with a baseline suspected, and what came of it."""

    name: str  # of benchmark and gate
    suspected: str  # the figure, beside the promoted runs
    found: str  # the word and the figure of pairs of processes, or why there is none
    cost: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PageSection:
    """Charts under one heading."""

    title: str
    note: str
    charts: list[Chart]

    @property
    def anchor(self) -> str:
        """The name by which the page links to it."""
        return self.title.lower().replace(" ", "-")


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """All that a report says."""

    green: bool  # whether nothing is red
    headline: str  # that, in words
    tally: str  # how many verdicts of each kind
    what: str  # what was measured, and when
    faults: list[str]  # what kept the session from being evaluated
    rows: list[VerdictRow]  # of the table of verdicts, the worst first
    suspicions: list[Suspicion]
    sections: list[PageSection]
    changes: list[str]  # lasting changes of figures, a line each
    environment: Environment
    source: str  # the name of the run file


def page_of(run: Run, past: Sequence[Path]) -> Page:
    """Return what there is to say of a run, of one tree or of two.

    Of earlier runs of the same hardware, `past`, the newest first, nothing is shown beside a
    comparison of two trees.

    Raises:
        RunError: an earlier file is not a run.
    """
    past = [] if run.against is not None else past[: _RUNS - 1]
    series = _series(run, past)
    before = _before(run, series, past)
    bad = {key for key, outcome in run.items.items() if outcome in {"failed", "error"}} | {
        key
        for key, benchmark in run.benchmarks.items()
        if any(verdict.outcome is Outcome.FAIL for verdict in benchmark.verdicts)
    }
    green = run.complete and not bad and not run.unevaluated
    return Page(
        green=green,
        headline=_headline(run, len(bad), green=green)
        + " (simulated: nothing was measured)" * run.simulated,
        tally=_tally(run),
        what=_what(run),
        faults=run.unevaluated,
        rows=_rows(run),
        suspicions=_suspicions(run),
        sections=_sections(run, before, series),
        changes=[line for each in series if each.changes() for line in tell(each)],
        environment=environment_of(run, before),
        source=run.path.name,
    )


def _headline(run: Run, bad: int, *, green: bool) -> str:
    benchmarks = counted(len(run.items), "benchmark")
    if green:
        skipped = sum(said == "skipped" for said in run.items.values())
        return f"Green: {benchmarks}, none failed{f', {skipped} skipped' * bool(skipped)}"
    if bad:
        return f"Red: {bad} of {benchmarks} failed"
    return "Red: not everything was evaluated" if run.complete else "Red: it did not run to its end"


def _tally(run: Run) -> str:
    verdicts = [verdict for each in run.benchmarks.values() for verdict in each.verdicts]
    counts = Counter(verdict.shown for verdict in sorted(verdicts, key=lambda v: v.outcome.rank))
    return ", ".join(f"{count} {word}" for word, count in counts.items()) or "no verdict"


def _what(run: Run) -> str:
    parts = [
        f"{run.hardware_name} ({run.hardware})",
        f"torch {run.software.get('torch')}",
        f"commit {run.commit[:12]}{', with uncommitted changes' * run.dirty}",
        f"{run.started[:16].replace('T', ' ')} UTC",
    ]
    for name in ("workload", "data", "batch_size", "samples"):
        found = {str(each.config[name]) for each in run.benchmarks.values() if name in each.config}
        if found:
            parts.append(f"{name.replace('_', ' ')} {' and '.join(sorted(found))}")
    return "; ".join(parts)


def _rows(run: Run) -> list[VerdictRow]:
    rows: list[VerdictRow] = []
    for key, outcome in run.items.items():
        benchmark = run.benchmarks.get(key)
        verdicts, reasons = (benchmark.verdicts, benchmark.reasons) if benchmark else ([], [])
        red = any(verdict.outcome.rank <= Outcome.INCONCLUSIVE.rank for verdict in verdicts)
        if outcome == "error" or (outcome != "passed" and not red):
            rows.append(VerdictRow(name=short_name(key), verdict=_no_verdict(outcome)))
        for at, verdict in enumerate(sorted(verdicts, key=lambda each: each.outcome.rank)):
            # Reasons are of the benchmark, whose worst verdict comes first.
            why = reasons if at == 0 else []
            name = gate_name(key, verdict.gate)
            rows.append(VerdictRow(name=name, verdict=verdict, reasons=why))
    return sorted(rows, key=lambda row: row.verdict.outcome.rank)


def _suspicions(run: Run) -> list[Suspicion]:
    found = []
    for key, benchmark in run.benchmarks.items():
        if (confirmation := benchmark.confirmation) is None:
            continue
        settled = {verdict.gate: verdict for verdict in benchmark.verdicts}
        cost = f"{len(confirmation.turns.get('restarts', ()))} pairs, {confirmation.took_s:.0f} s"
        for verdict in confirmation.suspected:
            said = settled.get(verdict.gate, verdict)
            confirmed = f"{said.shown} {said.figure}"
            row = Suspicion(
                name=gate_name(key, verdict.gate),
                suspected=verdict.figure,
                found=f"not measured again: {confirmation.why_not}"
                if confirmation.why_not
                else confirmed,
                cost="" if confirmation.why_not else cost,
            )
            found.append(row)
    return found


def _no_verdict(outcome: str) -> Verdict:
    """Return what stands for the verdict of a benchmark that ended without, or was not run."""
    skipped = outcome == "skipped"
    return Verdict(
        gate="",
        outcome=Outcome.NOT_GATED if skipped else Outcome.FAIL,
        figure="no verdict",
        threshold="" if skipped else "a benchmark that runs to its end",
        reason="nothing is required of what is skipped" if skipped else "",
        word=outcome.upper(),
    )


def _series(run: Run, past: Sequence[Path]) -> list[Series]:
    """Return the history of each figure of the run.

    Raises:
        RunError: an earlier file is no run.
    """
    if not past or not any(each.metrics for each in run.benchmarks.values()):
        return []
    found, skipped = read_history([*past, run.path], run.hardware)
    if skipped:
        raise RunError(skipped[0])
    # A figure that the run itself has not measured is none of its own.
    return [each for each in found if run.path in {point.path for point in each.points}]


def _before(run: Run, series: Sequence[Series], past: Sequence[Path]) -> Run | None:
    """Return the run to show beside this one: the baseline's newest, or else the newest."""
    known = {point.started: point.path for each in series for point in each.points}
    promoted = [known[started] for started in sorted(run.baseline) if started in known]
    return read_run((promoted or list(past[:1]))[-1]) if past else None


def _sections(run: Run, before: Run | None, series: Sequence[Series]) -> list[PageSection]:
    benchmarks = list(run.benchmarks.values())
    timed = [timing for each in benchmarks for timing in timings(each)]
    past = before.benchmarks if before is not None else {}
    beside = f", beside the run of {before.started[:10]}" if before is not None else ""
    code = ": the code before, and the code after" if run.against is not None else ""
    of_after = ", by the code after" if run.against is not None else ""
    long_enough = [each for each in series if len(each.points) >= _LEAST_RUNS]
    sections = [
        PageSection(
            title="Step times",
            note=f"Seconds that a training step takes, by arm{code}.",
            charts=[
                *step_times(timed),
                *shares_of_ceiling(benchmarks),
                *device_ceilings(benchmarks),
                *host_and_device(benchmarks),
            ],
        ),
        PageSection(
            title="Levers",
            note="What may make the step faster without changing what it computes.",
            charts=[chart for each in benchmarks for chart in levers_tried(each)],
        ),
        PageSection(
            title="Blocks over time",
            note="What was timed, block by block: a drift or a pause is visible here.",
            charts=[blocks_over_time(timing) for timing in timed],
        ),
        PageSection(
            title="Ranks",
            note="Seconds of each rank, of which a block has the slowest one's.",
            charts=[
                *scaling_of_ranks(benchmarks),
                *(chart for timing in timed for chart in times_of_ranks(timing)),
            ],
        ),
        PageSection(
            title="Training",
            note=f"Both precisions from the same weights over the same batches{of_after}.",
            charts=[
                chart
                for kind in (loss_curves, loss_scales)
                for b in benchmarks
                for chart in kind(b)
            ],
        ),
        PageSection(
            title="Memory",
            note=f"Bytes by precision{of_after}.",
            charts=[chart for each in benchmarks for chart in memory_use(each)],
        ),
        PageSection(
            title="Operators",
            note=f"Where the time of a step goes{beside}.",
            charts=[chart for each in benchmarks for chart in operators(each, past)],
        ),
        PageSection(
            title="History",
            note="Figures run by run, those with a lasting change first.",
            charts=list(map(history, sorted(long_enough, key=lambda each: not each.changes()))),
        ),
    ]
    return [section for section in sections if section.charts]
