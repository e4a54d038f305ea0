"""The page of the study on a simulated GPU: what was planted, and what is said of it."""

from typing import TYPE_CHECKING

from scipy.stats import binomtest
from simulated_gpu_truths import MARGIN, MINIMUM

if TYPE_CHECKING:
    from collections.abc import Sequence

    from simulated_gpu_study import SaidOf

_ASKED = {
    "two trees": "Two trees take turns",
    "a night": "A night beside promoted runs",
    "a speed-up": "Mixed precision beside fp32",
}


def page(told: "Sequence[SaidOf]") -> str:
    """Return the study as Markdown."""
    cases, right = sum(each.cases for each in told), sum(each.right for each in told)
    interval = binomtest(right, cases).proportion_ci(method="wilson")
    lines = [
        "# What is said of a GPU of which the truth is known?",
        "",
        "SIMULATED: nothing was measured. A card stands for an H100; its launches, kernels, clock"
        " and neighbours are [estimates](../../perfsuite/devices/cards.py), and its kernels those"
        " of the tutorial's network. What is planted is known, and all else is as on a quiet"
        f" machine: kernels scatter by 1 %, processes by 0.3 %. {told[0].cases} seeds a line."
        f" Required: of two trees the same within {MARGIN:.0%}, of a night what is required where a"
        f" suite sets nothing, of a speed-up {MINIMUM:g}x at a batch that keeps the device busy."
        " Written by `python studies/simulated_gpu_study.py`.",
        "",
        f"**{right} of {cases} cases were told as they are**, by each of their figures; Wilson's"
        f" interval at 95 % is [{interval.low:.1%}, {interval.high:.1%}].",
    ]
    for asked, title in _ASKED.items():
        lines += [
            "",
            f"## {title}",
            "",
            "| planted | precision | figure | wanted | said | right |",
            "| --- | --- | --- | --- | --- | ---: |",
        ]
        for each in told:
            if each.asked == asked:
                lines += _rows(each)
    return "\n".join(lines) + "\n"


def _rows(each: "SaidOf") -> list[str]:
    rows = []
    for index, (figure, wanted) in enumerate(each.wanted.items()):
        head = f"{each.name} | {each.precision}" if not index else " | "
        said = ", ".join(f"{word} {count}" for word, count in each.said[figure].items())
        right = f"{each.right} of {each.cases}" if not index else ""
        rows.append(f"| {head} | {figure} | {' or '.join(wanted)} | {said} | {right} |")
    return rows
