"""What the report of a run says, before it is laid out: verdicts, exhibits, environment."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from perfsuite.judging.gates import Outcome
from perfsuite.records.history import Series, read_history, tell
from perfsuite.records.schema import Run, RunError, read_run
from perfsuite.records.wording import gate_name, short_name
from perfsuite.report.environment import Difference, before_of, compared_with, environment
from perfsuite.report.figure import Exhibit
from perfsuite.report.raw_figures import timings
from perfsuite.report.speed_figures import blocks_over_time, histories, operators, step_times
from perfsuite.report.training_figures import loss_curves, loss_scales, memory_use

_RUNS = 365
"""Of a history that are shown; older ones take no part in it."""
_LEAST_RUNS = 3
"""Fewer are no history."""
_MARKS = {
    Outcome.PASS: "🟢",
    Outcome.FAIL: "🔴",
    Outcome.INCONCLUSIVE: "🟡",
    Outcome.NOT_GATED: "⚪",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A line of the table of verdicts.

    Attributes:
        word: FAIL, SLOWER and so on; or what became of an item without a verdict.
        outcome: a class of the page's style.
        mark: a coloured dot.
        name: of benchmark and gate.
        figure: what was measured.
        asked: what was asked of it.
        reason: why the verdict is what it is.
        why: what accounts for a change, a line each.
    """

    word: str
    outcome: str
    mark: str
    name: str
    figure: str
    asked: str
    reason: str = ""
    why: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """Exhibits under one heading."""

    anchor: str
    title: str
    note: str
    exhibits: list[Exhibit]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """All that a report says.

    Attributes:
        green: whether nothing is red.
        headline: that, in words.
        tally: how many verdicts of each kind.
        what: what was measured, and when.
        faults: what kept the session from being evaluated.
        rows: of the table of verdicts, the worst first.
        sections: with exhibits.
        changes: where figures changed for good, a line each.
        environment: versions and the machine's state.
        environment_note: what it is compared with.
        compared: whether it is.
        source: the name of the run file.
    """

    green: bool
    headline: str
    tally: str
    what: str
    faults: tuple[str, ...]
    rows: tuple[Row, ...]
    sections: tuple[Section, ...]
    changes: tuple[str, ...]
    environment: tuple[Difference, ...]
    environment_note: str
    compared: bool
    source: str

    @property
    def differences(self) -> list[Difference]:
        """What of the environment changed."""
        return [each for each in self.environment if each.changed]


def page_of(run: Run, past: Sequence[Path]) -> Page:
    """Return what there is to say of a run.

    Args:
        run: of one tree, or of two.
        past: earlier runs of the same hardware, the newest first; nothing of them is shown
            beside a comparison of two trees.

    Raises:
        RunError: an earlier file is not a run.
    """
    past = [] if run.against is not None else past[: _RUNS - 1]
    series = _series(run, past)
    before = _before(run, series, past)
    bad = {key for key, said in run.items.items() if said in {"failed", "error"}} | {
        key
        for key, benchmark in run.benchmarks.items()
        if any(verdict.outcome is Outcome.FAIL for verdict in benchmark.verdicts)
    }
    green = run.complete and not bad and not run.unevaluated
    then_software, then_state = before_of(run, before)
    return Page(
        green=green,
        headline=_headline(run, len(bad), green=green),
        tally=_tally(run),
        what=_what(run),
        faults=tuple(run.unevaluated),
        rows=tuple(_rows(run)),
        sections=tuple(_sections(run, before, series)),
        changes=tuple(line for each in series if each.changes() for line in tell(each)),
        environment=tuple(environment(run, then_software, then_state)),
        environment_note=compared_with(run, before),
        compared=then_software is not None,
        source=run.path.name,
    )


def _headline(run: Run, bad: int, *, green: bool) -> str:
    benchmarks = f"{len(run.items)} benchmark{'s' * (len(run.items) != 1)}"
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
    for name in ("workload", "data", "batch_size"):
        found = {str(each.config[name]) for each in run.benchmarks.values() if name in each.config}
        if found:
            parts.append(f"{name.replace('_', ' ')} {' and '.join(sorted(found))}")
    return "; ".join(parts)


def _rows(run: Run) -> list[Row]:
    rows: list[tuple[int, Row]] = []
    for key, said in run.items.items():
        benchmark = run.benchmarks.get(key)
        found = list(benchmark.verdicts) if benchmark is not None else []
        found.sort(key=lambda verdict: verdict.outcome.rank)
        red = any(verdict.outcome.rank <= Outcome.INCONCLUSIVE.rank for verdict in found)
        if said == "error" or (said != "passed" and not red):
            rows.append(_without_verdict(key, said))
        for at, verdict in enumerate(found):
            row = Row(
                word=verdict.shown,
                outcome=verdict.outcome.name,
                mark=_MARKS[verdict.outcome],
                name=gate_name(key, verdict.gate),
                figure=verdict.figure,
                asked=verdict.threshold,
                reason=verdict.reason,
                # They are of the benchmark, whose worst verdict comes first.
                why=tuple(benchmark.reasons) if benchmark is not None and at == 0 else (),
            )
            rows.append((verdict.outcome.rank, row))
    return [row for _, row in sorted(rows, key=lambda each: each[0])]


def _without_verdict(key: str, said: str) -> tuple[int, Row]:
    """Return rank and line of a benchmark that ended before its verdict, or was not run."""
    outcome = Outcome.NOT_GATED if said == "skipped" else Outcome.FAIL
    row = Row(
        word=said.upper(),
        outcome=outcome.name,
        mark=_MARKS[outcome],
        name=short_name(key),
        figure="no verdict",
        asked="nothing" if said == "skipped" else "must run to its end",
    )
    return outcome.rank, row


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


def _worth_showing(series: Sequence[Series]) -> list[Series]:
    shown = [each for each in series if len(each.points) >= _LEAST_RUNS]
    return sorted(shown, key=lambda each: not each.changes())


def _sections(run: Run, before: Run | None, series: Sequence[Series]) -> list[Section]:
    benchmarks = list(run.benchmarks.values())
    timed = [timing for each in benchmarks for timing in timings(each, short_name(each.key))]
    past = before.benchmarks if before is not None else {}
    beside = f", beside the run of {before.started[:10]}" if before is not None else ""
    of_trees = run.against is not None
    of_after = ", by the code after" * of_trees
    sections = [
        Section(
            anchor="times",
            title="Step times",
            note="Seconds that a training step takes, by arm"
            + (": the code before, and the code after." if of_trees else "."),
            exhibits=step_times(timed),
        ),
        Section(
            anchor="blocks",
            title="Blocks over time",
            note="What was timed, block by block: a drift or a stall shows here.",
            exhibits=blocks_over_time(timed),
        ),
        Section(
            anchor="training",
            title="Training",
            note=f"Both precisions from the same weights over the same batches{of_after}.",
            exhibits=[*loss_curves(benchmarks), *loss_scales(benchmarks)],
        ),
        Section(
            anchor="memory",
            title="Memory",
            note=f"Bytes by precision{of_after}.",
            exhibits=memory_use(benchmarks),
        ),
        Section(
            anchor="operators",
            title="Operators",
            note=f"Where the time of a step goes{beside}.",
            exhibits=operators(benchmarks, past),
        ),
        Section(
            anchor="history",
            title="History",
            note="Figures run by run, those that changed for good first.",
            exhibits=histories(_worth_showing(series)),
        ),
    ]
    return [section for section in sections if section.exhibits]
