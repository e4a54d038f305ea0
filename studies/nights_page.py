"""The page on simulated nights: what each rule says of unchanged code, and what it finds."""

from typing import TYPE_CHECKING

from scipy.stats import binomtest

from perfsuite.measuring.turns import USUAL_BUDGET_S

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nights_study import NightsCase

PAIR_S = 2.0
"""That a pair of processes takes, of the budget for its benchmark."""
RULES = {
    "perfsuite": "perfsuite",
    "perfsuite, more budget": "more budget",
    "perfsuite 0.2": "0.2",
    "pytest-benchmark, mean:5%": "mean:5%",
    "pytest-benchmark, min:5%": "min:5%",
    "Megatron, median within 5%": "Megatron",
    "PyTorch HUD, two nights of 5%": "HUD",
}
"""The rules, and what their columns are called."""


def page(told: "Sequence[NightsCase]") -> str:
    """Return the study as Markdown."""
    clean = [case for case in told if not case.planted]
    lines = [
        "# How good is a nightly gate?",
        "",
        f"{clean[0].nights:,} simulated nights of each kind, margin 5 %, three promoted runs,"
        " a suite of ten figures. Written by `python studies/nights_study.py`.",
        "",
        "*Spread* is that of a figure between two processes, give or take a third from figure to"
        " figure. Nights are *calm*; *drift*: all figures follow the machine, from night to night"
        " by as much as the spread; *strays*: one run in twenty is five times as far off;"
        " *software*: from some night of twenty on everything takes 10 % longer, with the same"
        " code.",
        "",
        "perfsuite screens, and confirms what it suspects by pairs of processes until the answer"
        f" is clear, or its budget is spent: the usual {USUAL_BUDGET_S:g} s, or with *more budget*"
        f" `--perf-budget {clean[0].room * PAIR_S:g}`, if a pair takes {PAIR_S:g} s; pairs are told"
        " of the latter. 0.2 is its rule until then."
        " `mean:5%` and `min:5%` are pytest-benchmark's, held against one saved run; Megatron's is"
        " a golden run's median within 5 %; the HUD's, of PyTorch, two nights in a row 5 % above"
        " the median of those before.",
        "",
        "## Unchanged code",
        "",
        "Nights that were not green; in brackets those that were red, where there is a word for"
        " unclear. ENVIRONMENT, said where the machine itself became slower, has its own column.",
        "",
        "| spread | nights | suspected | pairs then | environment |"
        f" {' | '.join(RULES.values())} |",
        "| ---: | --- | ---: | ---: | ---: |" + " ---: |" * len(RULES),
    ]
    for case in clean:
        cells = [_not_green(case, rule) for rule in RULES]
        moved = case.said["perfsuite"].get("ENVIRONMENT", 0) / case.nights
        lines.append(
            f"| {case.spread:.1%} | {case.kind} | {case.suspected / case.nights:.1%} |"
            f" {case.pairs:.0f} | {moved:.1%} | {' | '.join(cells)} |"
        )
    for planted in sorted({case.planted for case in told} - {0.0}):
        lines += [
            "",
            f"## Code that is {planted:.0%} slower",
            "",
            "Nights on which it was found: the first of the slower code, on which the HUD's rule"
            " can hardly speak yet.",
            "",
            f"| spread | nights | pairs, in one night of 100 | {' | '.join(RULES.values())} |",
            "| ---: | --- | ---: |" + " ---: |" * len(RULES),
        ]
        for case in told:
            if case.planted == planted:
                cells = [f"{_share(case, rule, 'FAIL'):.1%}" for rule in RULES]
                lines.append(
                    f"| {case.spread:.1%} | {case.kind} | {case.pairs:.0f}, {case.most_pairs} |"
                    f" {' | '.join(cells)} |"
                )
    ours = [rule for rule in RULES if rule.startswith("perfsuite") and rule != "perfsuite 0.2"]
    red = max(case.said[rule].get("FAIL", 0) for case in clean for rule in ours)
    interval = binomtest(red, clean[0].nights).proportion_ci(method="wilson")
    lines += [
        "",
        f"At most {red} of {clean[0].nights:,} unchanged nights of a kind were red: Wilson's"
        f" interval at 95 % is [{interval.low:.2%}, {interval.high:.2%}]. Nights of one baseline"
        " are not quite independent.",
    ]
    return "\n".join(lines) + "\n"


def _share(case: "NightsCase", rule: str, word: str) -> float:
    return case.said[rule].get(word, 0) / case.nights


def _not_green(case: "NightsCase", rule: str) -> str:
    red, unclear = (_share(case, rule, word) for word in ("FAIL", "INCONCLUSIVE"))
    if rule.startswith("perfsuite"):  # which has a word for unclear
        return f"{red + unclear:.1%} ({red:.2%})"
    return f"{red:.1%}"
