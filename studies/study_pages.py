"""The study's report: rates with their intervals as a page, a picture, and JSON."""

from collections import Counter
from collections.abc import Iterable, Sequence
from math import log
from pathlib import Path
from statistics import fmean, median

import matplotlib as mpl
import msgspec
from recordings import DetectionStudy
from replay import replay, replay_sequential
from scipy.stats import binomtest
from study_verdicts import ASV_P, MARGIN, PERCENT, RULES, DetectionTrial, verdicts

from perfsuite.judging.gates import Outcome

mpl.use("Agg")

from matplotlib import pyplot as plt  # the backend is chosen first

plt.rcParams["svg.hashsalt"] = "detection"  # the same file each time

AA_REPLAYS, REPLAYS = 10_000, 2_000
SLOWDOWNS = (0.0, 0.01, 0.02, 0.03, 0.05, 0.10)
MARKS = dict(zip(RULES, "os^vD", strict=True))


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """How often one rule said what, of trials with one slowdown and one budget.

    Attributes:
        how: "live" or "replay".
        rule: its name.
        slowdown: that was planted.
        budget_s: of a trial.
        n: trials.
        fail, inconclusive: how many of them were found slower, or left open.
        low, high: the Wilson interval of the share of FAIL, at 95 %; of a replay it would tell
            of the drawing alone, and not of the few processes that are drawn from: None.
    """

    how: str
    rule: str
    slowdown: float
    budget_s: float
    n: int
    fail: int
    inconclusive: int
    low: float | None
    high: float | None


def _rate(how: str, rule: str, slowdown: float, budget_s: float, said: Sequence[Outcome]) -> Rate:
    counts = Counter(said)
    wilson = binomtest(counts[Outcome.FAIL], len(said)).proportion_ci(method="wilson")
    live = how == "live"
    return Rate(
        how=how,
        rule=rule,
        slowdown=slowdown,
        budget_s=budget_s,
        n=len(said),
        fail=counts[Outcome.FAIL],
        inconclusive=counts[Outcome.INCONCLUSIVE],
        low=round(float(wilson.low), 5) if live else None,
        high=round(float(wilson.high), 5) if live else None,
    )


def rates(trials: Sequence[DetectionTrial]) -> list[Rate]:
    """Return the rates of all rules, live and replayed."""
    found = []
    for slowdown, budget_s in sorted({(trial.slowdown, trial.budget_s) for trial in trials}):
        said: dict[str, list[Outcome]] = {}
        for trial in trials:
            if (trial.slowdown, trial.budget_s) == (slowdown, budget_s):
                for rule, outcome in verdicts(trial).items():
                    said.setdefault(rule, []).append(outcome)
        found += [_rate("live", rule, slowdown, budget_s, each) for rule, each in said.items()]
    for budget_s in sorted({trial.budget_s for trial in trials}):
        for slowdown in SLOWDOWNS:
            n = REPLAYS if slowdown else AA_REPLAYS
            ours = replay(trials, slowdown=slowdown, budget_s=budget_s, n=n, seed=0)
            theirs = replay_sequential(trials, slowdown=slowdown, budget_s=budget_s)
            for rule, each in {"perfsuite": ours, **theirs}.items():
                found.append(_rate("replay", rule, slowdown, budget_s, each))
    return found


def write_report(study: DetectionStudy, path: Path) -> list[Path]:
    """Write the rates beside the recordings, as JSON, Markdown and a picture; return the files."""
    found = rates(study.trials)
    files = [path.with_suffix(suffix) for suffix in (".rates.json", ".md", ".svg")]
    files[0].write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n")
    files[1].write_text(page(study, found, files[2].name), encoding="utf-8")
    _draw(found, files[2])
    return files


def page(study: DetectionStudy, found: Iterable[Rate], picture: str) -> str:
    """Return the report as Markdown."""
    software, trials = study.software, study.trials
    lines = [
        "# How good are the verdicts?",
        "",
        f"{len(trials)} trials on {study.count} x {study.hardware}, torch {software['torch']},"
        f" pytest-benchmark {software['pytest-benchmark']}, Python {software['python']},"
        f" from {min(trial.started for trial in trials)[:10]}; one-minute load"
        f" {min(t.load_1min or 0 for t in trials):.1f} to"
        f" {max(t.load_1min or 0 for t in trials):.1f}. Written by"
        " `python studies/detection_study.py`.",
        "",
        "A trial compares a training step with itself, its second side slowed down by the share"
        " given. perfsuite judges pairs of fresh processes that take turns, each pair one"
        " observation, sampled until its verdict is clear or the budget is spent: this is the"
        " comparison of two processes or trees, not the ratio of two precisions in one process,"
        " nor one with stored runs. The others judge two processes, one after the other, for half"
        f" the budget each: pytest-benchmark's `--benchmark-compare-fail` at {PERCENT} %, and a"
        f" Mann-Whitney test at p < {ASV_P} as asv takes it, without its smallest factor.",
        "",
        f"perfsuite was asked for slowdowns above {MARGIN:.0%}, so that at 0 % it has that much"
        " room. At 0 % every FAIL is a false alarm. INCONCLUSIVE is no alarm and no all-clear: the"
        " budget was too small to say, and it is as red as FAIL unless `warn` lists the gate."
        " All that was recorded is judged as perfsuite would judge now, but for a pair's ratio: of"
        " each group of four only the sums were kept, and not the neighbours that are compared"
        " [since](stopping.md). Intervals are Wilson's, at 95 %. Replays draw trials anew from the"
        " recorded processes, and share what is peculiar to them.",
        "",
        *(_spent(trials, budget_s) for budget_s in sorted({t.budget_s for t in trials})),
        "",
        f"![Share of trials by what each rule said, by planted slowdown]({picture})",
        "",
        "| | budget | slowdown | rule | trials | FAIL | | INCONCLUSIVE | PASS |",
        "| --- | ---: | ---: | --- | ---: | ---: | --- | ---: | ---: |",
    ]
    for rate in found:
        fail, open_ = rate.fail / rate.n, rate.inconclusive / rate.n
        interval = "" if rate.low is None else f"[{rate.low:.1%}, {rate.high:.1%}]"
        lines.append(
            f"| {rate.how} | {rate.budget_s:g} s | {rate.slowdown:.0%} | {rate.rule} | {rate.n:,}"
            f" | {fail:.2%} | {interval} | {open_:.1%}"
            f" | {(rate.n - rate.fail - rate.inconclusive) / rate.n:.1%} |"
        )
    return "\n".join(lines) + "\n"


def _spent(trials: Sequence[DetectionTrial], budget_s: float) -> str:
    """Return a line on what a budget came to."""
    mine = [trial for trial in trials if trial.budget_s == budget_s]
    pairs = [len(trial.restarts) for trial in mine]
    spent_s = [trial.restarts_s for trial in mine]
    scatter = median(
        abs(log(restart.ratio / (1 + trial.slowdown)))
        for trial in mine
        for restart in trial.restarts
    )
    return (
        f"- Of {budget_s:g} s perfsuite took {fmean(spent_s):.0f} s on average"
        f" ({min(spent_s):.0f} to {max(spent_s):.0f}), for {min(pairs)} to {max(pairs)} pairs of"
        f" processes, {sum(pairs)} in all; half of their ratios were within {scatter:.1%}."
    )


def _draw(found: Sequence[Rate], path: Path) -> None:
    panels = sorted({(rate.how, rate.budget_s) for rate in found})
    figure, axes = plt.subplots(
        1,
        len(panels),
        figsize=(3.6 * len(panels), 4),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    entries = {}
    for axis, (how, budget_s) in zip(axes[0], panels, strict=True):
        for shift, rule in enumerate(RULES):
            mine = [r for r in found if (r.how, r.budget_s, r.rule) == (how, budget_s, rule)]
            if not mine:
                continue
            at = [100 * rate.slowdown + 0.08 * (shift - 2) for rate in mine]
            shares = [100 * rate.fail / rate.n for rate in mine]
            line = axis.plot(
                at,
                shares,
                marker=MARKS[rule],
                markersize=5,
                linewidth=2 if rule == "perfsuite" else 1,
            )[0]
            entries[f"{rule}: FAIL"] = line
            for x, rate in zip(at, mine, strict=True):
                if rate.low is not None and rate.high is not None:
                    axis.vlines(x, 100 * rate.low, 100 * rate.high, colors=line.get_color())
            if any(rate.inconclusive for rate in mine):
                open_ = [100 * rate.inconclusive / rate.n for rate in mine]
                colour = line.get_color()
                entries[f"{rule}: INCONCLUSIVE"] = axis.plot(at, open_, ".--", color=colour)[0]
        axis.set_title(f"{how}, {budget_s:g} s a comparison")
        axis.set_xlabel("planted slowdown, %")
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("trials, %")
    figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=len(entries))
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
