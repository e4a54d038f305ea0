"""The study's report: rates with their intervals as a page, a picture, and JSON."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import matplotlib as mpl
import msgspec
from records import Study
from replay import replay, replay_sequential
from scipy.stats import binomtest
from verdicts import MARGIN, RULES, Trial, verdicts

from perfsuite.gates import Outcome

mpl.use("Agg")

from matplotlib import pyplot as plt  # the backend is chosen first

__all__ = ["Rate", "rates", "write_report"]

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
        low, high: the Wilson interval of the share of FAIL, at 95 %.
    """

    how: str
    rule: str
    slowdown: float
    budget_s: float
    n: int
    fail: int
    inconclusive: int
    low: float
    high: float


def _rate(how: str, rule: str, slowdown: float, budget_s: float, said: Sequence[Outcome]) -> Rate:
    counts = Counter(said)
    wilson = binomtest(counts[Outcome.FAIL], len(said)).proportion_ci(method="wilson")
    return Rate(
        how=how,
        rule=rule,
        slowdown=slowdown,
        budget_s=budget_s,
        n=len(said),
        fail=counts[Outcome.FAIL],
        inconclusive=counts[Outcome.INCONCLUSIVE],
        low=round(float(wilson.low), 5),
        high=round(float(wilson.high), 5),
    )


def rates(trials: Sequence[Trial]) -> list[Rate]:
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


def write_report(study: Study, path: Path) -> list[Path]:
    """Write the rates beside the recordings, as JSON, Markdown and a picture; return the files."""
    found = rates(study.trials)
    files = [path.with_suffix(suffix) for suffix in (".rates.json", ".md", ".svg")]
    files[0].write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n")
    files[1].write_text(page(study, found, files[2].name), encoding="utf-8")
    _draw(found, files[2])
    return files


def page(study: Study, found: Iterable[Rate], picture: str) -> str:
    """Return the report as Markdown."""
    software, trials = study.software, study.trials
    restarts = sum(len(trial.restarts) for trial in trials)
    lines = [
        "# How good are the verdicts?",
        "",
        f"{len(trials)} trials on {study.count} x {study.hardware}, torch {software['torch']},"
        f" pytest-benchmark {software['pytest-benchmark']}, Python {software['python']},"
        f" from {min(trial.started for trial in trials)[:10]}; one-minute load"
        f" {min(t.load_1min or 0 for t in trials):.1f} to"
        f" {max(t.load_1min or 0 for t in trials):.1f}; {restarts} pairs of processes."
        " A trial compares a training step with itself, the second side slowed down by the share"
        " that is given. Each way of measuring had the same wall-clock budget: perfsuite for"
        " pairs of processes that took turns, the others for two processes one after the other."
        f" perfsuite was asked for slowdowns above {MARGIN:.0%}, the others as their names say."
        " At 0 % every FAIL is a false alarm. Intervals are Wilson's, at 95 %. Written by"
        " `python studies/detection.py`.",
        "",
        f"![Share of trials that each rule found slower, by planted slowdown]({picture})",
        "",
        "| | budget | slowdown | rule | trials | FAIL | | INCONCLUSIVE | PASS |",
        "| --- | ---: | ---: | --- | ---: | ---: | --- | ---: | ---: |",
    ]
    for rate in found:
        fail, open_ = rate.fail / rate.n, rate.inconclusive / rate.n
        lines.append(
            f"| {rate.how} | {rate.budget_s:g} s | {rate.slowdown:.0%} | {rate.rule} | {rate.n:,}"
            f" | {fail:.2%} | [{rate.low:.2%}, {rate.high:.2%}] | {open_:.1%}"
            f" | {1 - fail - open_:.1%} |"
        )
    return "\n".join(lines) + "\n"


def _draw(found: Sequence[Rate], path: Path) -> None:
    panels = sorted({(rate.how, rate.budget_s) for rate in found})
    figure, axes = plt.subplots(
        1, len(panels), figsize=(4.2 * len(panels), 3.8), sharey=True, squeeze=False
    )
    for axis, (how, budget_s) in zip(axes[0], panels, strict=True):
        for shift, rule in enumerate(RULES):
            mine = [r for r in found if (r.how, r.budget_s, r.rule) == (how, budget_s, rule)]
            shares = [100 * rate.fail / rate.n for rate in mine]
            ends = [
                [share - 100 * rate.low for share, rate in zip(shares, mine, strict=True)],
                [100 * rate.high - share for share, rate in zip(shares, mine, strict=True)],
            ]
            axis.errorbar(
                [100 * rate.slowdown + 0.08 * (shift - 2) for rate in mine],
                shares,
                # Rounding may leave an end on the wrong side of its share.
                [[max(0.0, end) for end in side] for side in ends],
                marker=MARKS[rule],
                markersize=5,
                linewidth=2 if rule == "perfsuite" else 1,
                capsize=2,
                label=rule,
            )
        axis.set_title(f"{how}, {budget_s:g} s a comparison")
        axis.set_xlabel("planted slowdown, %")
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("trials found slower, %")
    axes[0][-1].legend(fontsize=8, loc="lower right")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
