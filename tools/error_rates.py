"""Write what was measured into the method: ``python tools/error_rates.py docs/studies METHOD.md``.

Everything between a pair of markers is replaced: error rates, an example and the fit of the
intervals from the studies' recordings, and what follows from the code by arithmetic alone.
"""

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median, stdev
from string import ascii_lowercase
from typing import TypeVar

import msgspec
import numpy as np
from figures import replace
from scipy.stats import binomtest, rankdata

sys.path.insert(0, str(Path(__file__).parent.parent / "studies"))
import history_study  # found once they are on the path
from comparison_study import ComparedBenchmark, ComparisonStudy
from convergence_study import CASES, ConvergenceStudy, worst
from recordings import DetectionStudy, write_whole
from study_pages import Rate
from study_verdicts import CONFIDENCE, MARGIN, perfsuite_says

from perfsuite.judging.estimates import predicted_ratio, signed_rank_intervals
from perfsuite.judging.gates import Outcome
from perfsuite.judging.interleaving import pooled_ratio
from perfsuite.judging.spreads import Spread, or_assumed
from perfsuite.judging.thresholds import FILE_NAME, load_thresholds

SUITE = Path(__file__).parent.parent / "benchmarks"
LEAST_TRIALS = 10  # fewer tell no rate
SIMULATED, SEED = 2000, 20261124
RESEMBLANCES, LENGTHS = (0.0, 0.2, 0.4, 0.6), (9, 27)
PROMOTED, ALIKE = (1, 2, 3, 4, 5, 10), 10  # runs, and figures that spread alike

T = TypeVar("T")
TableRow = tuple[str, str, str, int, bool, int, int | None]
"""What was tried, the rule that judged, the machine, trials, whether something was planted, how
often the rule said so, and how often it could not say; None where it always can."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Studies:
    """All recordings, by kind; one of each machine."""

    detection: list[tuple[DetectionStudy, list[Rate]]]
    convergence: list[ConvergenceStudy]
    against: list[ComparisonStudy]
    history: list[history_study.HistoryCase]


def read(folder: Path) -> Studies:
    """Read every study in a folder.

    Raises:
        ValueError: there is none of a kind, or one cannot be read.
    """
    return Studies(
        detection=[
            (_decoded(path, DetectionStudy), _decoded(path.with_suffix(".rates.json"), list[Rate]))
            for path in _found(folder, "detection")
        ],
        convergence=[_decoded(path, ConvergenceStudy) for path in _found(folder, "convergence")],
        against=[_decoded(path, ComparisonStudy) for path in _found(folder, "against")],
        history=_decoded(folder / "history.json", list[history_study.HistoryCase]),
    )


def _found(folder: Path, kind: str) -> list[Path]:
    paths = [path for path in sorted(folder.glob(f"{kind}-*.json")) if ".rates" not in path.name]
    if not paths:
        raise ValueError(f"{folder}: no {kind}-*.json")
    return paths


def _decoded(path: Path, kind: type[T]) -> T:
    try:
        found = msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError) as error:
        raise ValueError(f"{path}: {error}") from None
    if not getattr(found, "trials", getattr(found, "sessions", found)):
        raise ValueError(f"{path}: nothing was recorded")
    return found


def _machine(study: DetectionStudy | ComparisonStudy) -> str:
    parts = (study.software.get("cpu_capability"), f"torch {study.software['torch']}")
    return ", ".join([f"{study.count} x {study.hardware}", *filter(None, parts)])


def _rows(studies: Studies) -> Iterator[TableRow]:
    for study, rates in studies.detection:
        for rate in rates:
            ours, drawn = rate.rule == "perfsuite", rate.how == "replay"
            tried = _two_processes(rate.slowdown, rate.budget_s) + ", replayed" * drawn
            rule = f"perfsuite, above {MARGIN:.0%}" if ours else rate.rule
            counts = rate.n, rate.slowdown > 0, rate.fail, rate.inconclusive if ours else None
            if (ours and not rate.slowdown) if drawn else rate.n >= LEAST_TRIALS:
                yield tried, rule, _machine(study), *counts
    for compared in studies.against:
        for (tried, share), benchmarks in _timed(compared).items():
            words = [each.words["step_s"] for each in benchmarks]
            unclear = words.count("INCONCLUSIVE")
            hits = len(words) - unclear - words.count("SAME")
            counts = len(words), share > 0, hits, unclear
            yield tried, "perfsuite", _machine(compared), *counts
    for trained in studies.convergence:
        where = f"{trained.hardware.partition(' (')[0]}, torch {trained.torch}"
        for case in CASES:
            said = [worst(each) for each in trained.trials if each.case == case.name]
            failed, unclear = said.count(Outcome.FAIL), said.count(Outcome.INCONCLUSIVE)
            counts = len(said), case.faulty, failed, unclear
            if said:
                yield f"convergence, {case.name}", "perfsuite", where, *counts
    for told in studies.history:
        tried = f"a history of {history_study.RUNS} runs, {told.noise}{_planted(told.step)}"
        if told.step in (0.0, 0.03):
            yield tried, "perfsuite", "simulated", told.trials, told.step > 0, told.found, None


def _planted(share: float) -> str:
    return f", {share:+.0%}" if share else ""


def _two_processes(slowdown: float, budget_s: float) -> str:
    return f"a step against itself{_planted(slowdown)}, {budget_s:g} s"


def _timed(
    study: ComparisonStudy,
) -> dict[tuple[str, float], list[ComparedBenchmark]]:
    """Return benchmarks whose times were compared, by what was tried and planted.

    Losses and bytes come from the same arithmetic in every session, and tell no rate.
    """
    found: dict[tuple[str, float], list[ComparedBenchmark]] = {}
    for session in sorted(study.sessions, key=lambda each: each.planted):
        for each in session.benchmarks:
            if each.ratios:
                name = each.name.removeprefix("test_")
                tried = f"`--perf-against`, {name}{_planted(session.planted)}"
                found.setdefault((tried, session.planted), []).append(each)
    return found


def _share(hits: int, of: int) -> str:
    wilson = binomtest(hits, of).proportion_ci(method="wilson")
    return f"{hits / of:.1%} [{wilson.low:.1%}, {wilson.high:.1%}]"


def error_rates(studies: Studies) -> str:
    """Return how often each rule was wrong, and how often right, as a table."""
    lines = [
        "| what was tried | judged by | trials | false alarms | found | left open | on |",
        "| --- | --- | ---: | ---: | ---: | ---: | --- |",
    ]
    letters: dict[str, str] = {}
    for tried, rule, where, trials, planted, hits, unclear in _rows(studies):
        # Of a replay an interval would tell of the drawing alone.
        drawn = tried.endswith("replayed")
        share = f"{hits / trials:.1%}" if drawn else _share(hits, trials)
        cells = f"| {share}" if planted else f"{share} |"
        left_open = "" if unclear is None else f"{unclear / trials:.1%}"
        letter = letters.setdefault(where, ascii_lowercase[len(letters)])
        lines.append(f"| {tried} | {rule} | {trials:,} | {cells} | {left_open} | {letter} |")
    legend = "; ".join(f"{letter}: {where}" for where, letter in letters.items())
    return "\n".join([*lines, "", f"Brackets are Wilson's intervals at 95 %. On {legend}."])


def interval_fit(studies: Studies) -> str:
    """Return how well the intervals fit what was planted, as a table."""
    found: dict[tuple[str, float], list[list[float]]] = {}
    for study, _ in studies.detection:
        for trial in sorted(study.trials, key=lambda each: (each.budget_s, each.slowdown)):
            what = _two_processes(trial.slowdown, trial.budget_s), trial.slowdown
            found.setdefault(what, []).append([each.ratio for each in trial.restarts])
    for compared in studies.against:
        for what, benchmarks in _timed(compared).items():
            found.setdefault(what, []).extend(each.ratios for each in benchmarks)
    lines = [
        "| what was tried | trials | interval missed the truth | half its width, median"
        " | estimates scatter by | expected from within | neighbours' correlation |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for (tried, share), trials in found.items():
        if len(trials) < LEAST_TRIALS:
            continue
        intervals = [pooled_ratio(ratios, confidence=CONFIDENCE) for ratios in trials]
        logs = [np.log(ratios).tolist() for ratios in trials]
        missed = sum(not each.low <= 1 + share <= each.high for each in intervals)
        half = median(math.log(each.high / each.low) / 2 for each in intervals)
        within = math.sqrt(fmean(stdev(each) ** 2 / len(each) for each in logs))
        alike = [_correlation(each) for each in logs]
        lines.append(
            f"| {tried} | {len(trials)} | {_share(missed, len(trials))} | {half:.1%}"
            f" | {stdev(math.log(each.value) for each in intervals):.1%} | {within:.1%}"
            f" | {fmean(alike):+.2f} ± {2 * stdev(alike) / math.sqrt(len(alike)):.2f} |"
        )
    return "\n".join(lines)


def _correlation(series: Sequence[float]) -> float:
    """Return the correlation of the ranks of neighbours, corrected as the intervals do."""
    n, ranks = len(series), rankdata(series) - (len(series) + 1) / 2
    return (n * float(ranks[1:] @ ranks[:-1] / (ranks @ ranks)) + 1) / (n - 3)


def example(studies: Studies) -> str:
    """Return one recorded trial, step by step: the first of the largest slowdown and budget."""
    trials = studies.detection[0][0].trials
    trial = max(trials, key=lambda each: (each.slowdown, each.budget_s))
    ratios = [each.ratio for each in trial.restarts]
    found, n = pooled_ratio(ratios, confidence=CONFIDENCE), len(ratios)
    stalled = [ratio * (10 if ratio == max(ratios) else 1) for ratio in ratios]
    moved = pooled_ratio(stalled, confidence=CONFIDENCE)
    shown = ", ".join(f"{ratio:.3f}" for ratio in ratios)
    return (
        f"The first recorded trial of a step made {trial.slowdown:.0%} slower, with"
        f" {trial.budget_s:g} s to find it: {n} pairs of fresh processes gave these ratios of after"
        f" to before.\n\n    {shown}\n\n"
        f"The median of their {n * (n + 1) // 2} averages is {found.value:.3f}x, the interval"
        f" [{found.low:.3f}, {found.high:.3f}]. Asked for slowdowns above {MARGIN:.0%}, the verdict"
        f" is {perfsuite_says(ratios)}. If a stall had made the largest ratio ten times as large,"
        f" the mean would have gone from {fmean(ratios):.3f} to {fmean(stalled):.3f}, the estimate"
        f" to {moved.value:.3f}x, the interval to [{moved.low:.3f}, {moved.high:.3f}]; the verdict"
        f" would be {perfsuite_says(stalled)}."
    )


def resemblance(_: Studies) -> str:
    """Return how often an interval misses where neighbours resemble each other, simulated."""
    heads = " | ".join(f"misses, from {n} observations" for n in LENGTHS)
    lines = [f"| correlation of neighbours | {heads} |", "| ---: |" + " ---: |" * len(LENGTHS)]
    lines += [
        f"| {r:g} | {' | '.join(_share(_misses(r, n), SIMULATED) for n in LENGTHS)} |"
        for r in RESEMBLANCES
    ]
    how = f"Simulated: {SIMULATED:,} normal series of first order each, seed {SEED}."
    return "\n".join([*lines, "", f"{how} Brackets are Wilson's intervals at 95 %."])


def _misses(r: float, n: int) -> int:
    series = np.random.default_rng(SEED).normal(size=(SIMULATED, n))
    for at in range(1, n):
        series[:, at] = r * series[:, at - 1] + math.sqrt(1 - r * r) * series[:, at]
    _, low, high = signed_rank_intervals(series, confidence=CONFIDENCE)
    return int(np.sum((low > 0) | (high < 0)))


def baseline_widths(_: Studies) -> str:
    """Return how wide the comparison with promoted runs is, by their number."""
    asked = [load_thresholds(SUITE / FILE_NAME, key).compare for key in ("", "cpu-")]
    heads = " | ".join(f"unchanged passes, margin {each.margin:.0%}" for each in asked)
    lines = [
        f"| promoted runs | half the width, in spreads: one figure | {ALIKE} alike | {heads} |"
    ]
    lines.append("| ---: " * 5 + "|")
    for n in PROMOTED:
        halves = []
        for figures in (1, ALIKE):
            spread = or_assumed(Spread(0.01, figures * (n - 1)), 0.01)
            confidence = 2 * asked[0].confidence - 1
            given = {"spread": 0.01, "degrees": spread.degrees, "confidence": confidence}
            halves.append(math.log(predicted_ratio(1.0, [1.0] * n, **given).high) / 0.01)
        cells = [
            f"at a spread up to {math.log1p(each.margin) / halves[1]:.1%}"
            if n > 1
            else f"never: {each.assumed_spread:.0%} or more is taken"
            for each in asked
        ]
        lines.append(f"| {n} | {halves[0]:.1f} | {halves[1]:.1f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Rewrite the page; return 0, or 1 after one line that says what was wrong."""
    if len(arguments) != 2:
        print("usage: python tools/error_rates.py docs/studies METHOD.md", file=sys.stderr)
        return 2
    folder, page = map(Path, arguments)
    try:
        text, studies = page.read_text(encoding="utf-8"), read(folder)
        for render in (example, error_rates, interval_fit, resemblance, baseline_widths):
            name = render.__name__.replace("_", "-")
            begin, end = (f"<!-- {name}: {which} -->" for which in ("begin", "end"))
            text = replace(text, f"{begin}\n{render(studies)}\n{end}", begin=begin, end=end)
        write_whole(page, text.rstrip("\n").encode())
    except (OSError, ValueError) as error:
        print(f"error_rates: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
