"""The page of the study of advice: rates with their intervals, from its JSON."""

from typing import TYPE_CHECKING

from scipy.stats import binomtest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from advice_study import AdviceCase, AdviceStudy


def page(study: "AdviceStudy") -> str:
    """Return the study as Markdown."""
    told = study.cases
    nights = sum(each.nights for each in told)
    lines = [
        "# Does the advised margin hold?",
        "",
        f"Simulated machines, {len(told)} kinds, {told[0].nights:,} nights each. A machine has"
        " ten figures that scatter between processes by the spread given, give or take a third. It"
        " has a short history, `perfsuite advise` names a margin from it, and new nights are"
        " judged with that margin in both stages, as a session does. Written by"
        " `python studies/advice_study.py`; intervals are Wilson's, at 95 %.",
        "",
        "What is promised: an unchanged night is red in 0.1 % of all cases or less, and a change of"
        " twice the margin (a factor of (1 + margin)², 10.25 % for 5 %) is found in 99 % or more.",
        "",
        f"All {nights:,} nights together: red though unchanged"
        f" {_share(sum(each.red for each in told), nights)}; found"
        f" {_share(sum(each.found for each in told), nights)}. Kinds whose interval lies above"
        f" 0.1 %: {_beyond(told)}; kinds whose interval lies below 99 %: {_missed(told)}.",
        "",
        "| spread | nights | known | budget | margin | unchanged: red | had each been confirmed |"
        " twice the margin: found | confirmed | foretold |",
        "| ---: | --- | --- | ---: | ---: | --- | --- | --- | ---: | ---: |",
    ]
    lines += [
        f"| {each.spread:.1%} | {each.kind} | {each.known} | {each.budget_s:g} s"
        f" | {each.margin:.1%} | {_share(each.red, each.nights)}"
        f" | {_share(each.confirmed_red, each.nights)} | {_share(each.found, each.nights)}"
        f" | {each.suspected:.1%} | {each.told:.1%} |"
        for each in told
    ]
    lines += [
        "",
        "`calm`: only processes scatter. `days`: each night moves all figures by as much again, the"
        " day of the promotion too. `strays`: one process in twenty is five times as far off. A"
        " pair of processes takes 2 s; confirmations are drawn from 4,000 simulated ones of each"
        " kind, which the intervals leave out of account. `confirmed` is the share of unchanged"
        " nights that the first stage did not pass, beside what the advice had foretold.",
        "",
        "## How many pairs hold which margin",
        "",
        "In units of a pair's scatter, as logarithms. Few pairs hold little: their interval ends at"
        " the outermost ratios, and widens where neighbours happen to resemble each other.",
        "",
        "| pairs | margin, in scatters of a pair |",
        "| ---: | ---: |",
    ]
    lines += [f"| {pairs} | {width:.2f} |" for pairs, width in study.reach.items()]
    return "\n".join(lines)


def _share(hits: int, of: int) -> str:
    interval = binomtest(hits, of).proportion_ci(method="wilson")
    return f"{hits / of:.2%} [{interval.low:.2%}, {interval.high:.2%}]"


def _beyond(told: "Sequence[AdviceCase]") -> str:
    kinds = [
        f"{each.kind} of {each.spread:.1%}, {each.known}, {each.budget_s:g} s"
        for each in told
        if binomtest(each.red, each.nights).proportion_ci(method="wilson").low > 0.001
    ]
    return f"{len(kinds)} ({'; '.join(kinds)})" if kinds else "none"


def _missed(told: "Sequence[AdviceCase]") -> int:
    return sum(
        binomtest(each.found, each.nights).proportion_ci(method="wilson").high < 0.99
        for each in told
    )
