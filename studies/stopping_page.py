"""The page of the study of stopping, from its figures."""

from collections.abc import Iterable

import msgspec
from scipy.stats import binomtest
from stopping_rules import CONFIDENCE, MARGIN


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """What one rule said of trials of one kind.

    Attributes:
        what: the noise, or "replayed".
        rule: "before", "now", or how pairs were measured.
        planted: by what share the second side was slower.
        scatter: standard deviation of a simulated value's logarithm.
        observations, seconds: until sampling ended, the median.
    """

    what: str
    rule: str
    planted: float
    scatter: float | None
    trials: int
    same: int
    slower: int
    faster: int
    observations: float
    seconds: float | None

    def wrong(self) -> int:
        """Return how many verdicts were false: right at the margin all of them are."""
        if self.planted == MARGIN:
            return self.same + self.slower + self.faster
        return self.faster + (self.slower if self.planted == 0 else self.same)


class PairStopped(msgspec.Struct, frozen=True, kw_only=True):
    """What a recorded pair costs and how far its ratio scatters, measured one way."""

    way: str
    seconds: float
    scatter: float


class SuiteStopped(msgspec.Struct, frozen=True, kw_only=True):
    """Suites of some benchmarks: the median of their seconds, and what they left open."""

    way: str
    planted: float
    trials: int
    seconds: float
    figures_open: float
    suites_open: float


class StoppingCases(msgspec.Struct, frozen=True, kw_only=True):
    """All figures of the study."""

    machine: str
    recorded: int
    budget_s: float
    benchmarks: int
    pairs: list[PairStopped]
    cases: list[Case]
    suites: list[SuiteStopped]


def _rate(hits: int, trials: int) -> str:
    wilson = binomtest(hits, trials).proportion_ci(method="wilson")
    return f"{hits / trials:.2%} [{wilson.low:.2%}, {wilson.high:.2%}]"


def _table(*heads: str) -> list[str]:
    return [f"| {' | '.join(heads)} |", f"| --- |{' ---: |' * (len(heads) - 1)}"]


def _less(now: float, before: float) -> str:
    return f"{now / before - 1:+.0%}"


def _errors(cases: Iterable[Case]) -> list[str]:
    found: dict[str, dict[tuple[str, float], Case]] = {}
    for each in cases:
        if each.planted in (0, MARGIN) and each.scatter in (None, 0.03):
            found.setdefault(each.what, {})[each.rule, each.planted] = each
    lines = _table(
        "noise", "trials", "at the margin: wrong, before", "now", "A/A: wrong, before", "now"
    )
    for what, by in found.items():
        last = "now" if ("now", 0.0) in by else "turns: now"
        cells = [
            _rate(by[rule, planted].wrong(), by[rule, planted].trials)
            for planted in (MARGIN, 0.0)
            for rule in ("before", last)
        ]
        lines.append(f"| {what} | {by['before', 0.0].trials:,} | {' | '.join(cells)} |")
    return lines


def _simulated(cases: Iterable[Case]) -> list[str]:
    found: dict[float, dict[tuple[str, float], float]] = {}
    for each in cases:
        if each.what == "normal" and each.scatter is not None and each.planted != MARGIN:
            found.setdefault(each.scatter, {})[each.rule, each.planted] = each.observations
    lines = _table("scatter", "to SAME, before", "now", "", "to SLOWER at +10 %, before", "now", "")
    for scatter, by in found.items():
        cells = [
            f"{by['before', planted]:g} | {by['now', planted]:g}"
            f" | {_less(by['now', planted], by['before', planted])}"
            for planted in sorted({planted for _, planted in by})
        ]
        lines.append(f"| {scatter:.0%} | {' | '.join(cells)} |")
    return lines


def _replayed(told: StoppingCases) -> list[str]:
    lines = _table(
        "measured and judged",
        "seconds a pair",
        "scatter",
        "to SAME: pairs",
        "seconds",
        "",
        "to SLOWER at +10 %: pairs",
        "seconds",
        "",
    )
    by = {(case.rule, case.planted): case for case in told.cases if case.what == "replayed"}
    largest = max(planted for _, planted in by)
    for pair in told.pairs:
        cells = []
        for planted in (0.0, largest):
            one, first = by[pair.way, planted], by["before", planted]
            assert one.seconds is not None
            assert first.seconds is not None
            less = _less(one.seconds, first.seconds) if one is not first else ""
            cells.append(f"{one.observations:g} | {one.seconds:.0f} | {less}")
        lines.append(
            f"| {pair.way} | {pair.seconds:.2f} | {pair.scatter:.1%} | {' | '.join(cells)} |"
        )
    return lines


def page(told: StoppingCases) -> str:
    """Return the study as Markdown."""
    suites = _table(
        "measured and judged", "planted", "suites", "seconds, median", "figures open", "suites open"
    )
    suites += [
        f"| {each.way} | {each.planted:.0%} | {each.trials:,} | {each.seconds:.0f}"
        f" | {each.figures_open:.1%} | {each.suites_open:.1%} |"
        for each in told.suites
    ]
    return "\n".join(
        [
            "# How soon is a verdict clear?",
            "",
            "Two rules for when to stop, the one before (8 looks from the 12th observation on that"
            " share the error equally, nothing added for a correlation that is not seen) and the"
            f" one of now, on the same values: margin {MARGIN:.0%}, confidence {CONFIDENCE:.0%}."
            " Written by `python studies/stopping_study.py`; seeded.",
            "",
            "## Errors",
            "",
            "Right at the margin, where every SAME and every SLOWER is wrong, and with nothing"
            " planted, where every SLOWER and FASTER is. No budget ends a trial, so that all looks"
            " take place. `heavy tails` are Student's t with 3 degrees of freedom, `strays` normal"
            " with one value in twenty five times as far off, `r` the correlation of neighbours;"
            " scatter 3 %. Brackets are Wilson's, at 95 %.",
            "",
            *_errors(told.cases),
            "",
            "## Simulated: observations until it is clear",
            "",
            "Normal noise; medians, and so looks, which both rules have at other numbers. Where"
            " values scatter by less than half the margin the rule of now saves what the first look"
            " came later; where by as much as the margin it saves nothing, and errs less.",
            "",
            *_simulated(told.cases),
            "",
            "## Replayed: one benchmark",
            "",
            f"{told.recorded} pairs of fresh processes with the same code, recorded from cold on"
            f" {told.machine}, while other work kept the machine busy; trials draw them anew,"
            f" {next(case.trials for case in told.cases if case.what == 'replayed'):,} of each."
            " Each row changes one thing more: when to look; the median over neighbouring turns"
            " in place of the estimate over groups of four; a warm-up that ends when two blocks"
            " bring no new extreme; turns that last twice as long as the start.",
            "",
            *_replayed(told),
            "",
            "## Replayed: a suite",
            "",
            f"{told.benchmarks} benchmarks one after the other, {told.budget_s:g} s each. With a"
            " shared budget a benchmark may use what those before it left.",
            "",
            *suites,
        ]
    )
