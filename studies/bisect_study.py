"""How good are bisections? Simulated histories of commits, searched by perfsuite and by git.

    python studies/bisect_study.py         # a quarter of an hour; writes docs/studies/bisect.md

Pure arithmetic with a seed: the same on every machine. Of each kind of history so many are drawn:
where it changes, and how processes scatter. `git bisect run` is played beside, with a threshold
half-way between the two levels, as if somebody knew both exactly.
"""

import math
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path
from statistics import fmean, median

import msgspec
import numpy as np
from recordings import write_whole
from scipy.stats import binomtest

from perfsuite.judging.change_posterior import CommitCompared
from perfsuite.judging.change_search import ChangeSearch, SearchAnswer, most_comparisons
from perfsuite.judging.estimates import Floats

FOLDER = Path(__file__).parent.parent / "docs" / "studies"
COMMITS, SEARCHES, MARGIN, SEED = 64, 1_000, 0.03, 20261130
NOISES = (0.01, 0.02, 0.04)
PLANTED: dict[str, tuple[float, ...]] = {
    "none": (),
    "+5 %": (0.05,),
    "+10 %": (0.10,),
    "+10 %, the machine drifts": (0.10,),
    "+20 %": (0.20,),
    "+10 % twice": (0.10, 0.10),
    "+20 %, then -9 %": (0.20, 1 / 1.1 - 1),
    "+10 %, then back": (0.10, 1 / 1.1 - 1),
}
GIT_PROCESSES = (1, 9)
"""Of each commit, of which `git bisect run` is given the median."""


class BisectCase(msgspec.Struct, frozen=True, kw_only=True):
    """What was said of histories of one kind.

    Attributes:
        noise: of a process, the standard deviation of its logarithm.
        planted: what changed, by its name.
        said: how many searches were "right", gave a "range", "missed", were "wrong", or "open".
        comparisons, rounds: of a search, on average; `most` is the most comparisons of any.
        git: how often `git bisect run` named a commit that changed, by processes a commit.
    """

    noise: float
    planted: str
    searches: int
    said: dict[str, int]
    comparisons: float
    most: int
    rounds: float
    git: dict[str, int]


def search(levels: Floats, noise: float, drift: float, draw: np.random.Generator) -> ChangeSearch:
    """Search a history, from its commits' log levels; a round is two pairs of fresh processes."""
    n = len(levels) - 1
    found = ChangeSearch([1.0] * n, margin=MARGIN)
    while (commit := found.next()) is not None:
        over_good: list[float] = []
        bad_over: list[float] = []
        while True:
            # A pair takes turns, so that the machine's speed is in both; between pairs it drifts.
            machine = draw.normal(0, drift, 2)
            good, one, other, bad = draw.normal(0, noise, 4)
            good, one = good + machine[0], one + machine[0]
            other, bad = other + machine[1], bad + machine[1]
            over_good.append(math.exp(levels[commit] + one - levels[0] - good))
            if commit != n:
                bad_over.append(math.exp(levels[n] + bad - levels[commit] - other))
            taken = CommitCompared(
                commit=commit, over_good=tuple(over_good), bad_over=tuple(bad_over)
            )
            if not found.unclear(taken):
                break
        found.tell(taken)
    return found


def git_bisect(is_bad: Callable[[int], bool]) -> int:
    """Return the commit that `git bisect run` names: it takes each answer for true."""
    good, bad = 0, COMMITS
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (good, middle) if is_bad(middle) else (middle, bad)
    return bad


def word(answer: SearchAnswer, changed: Sequence[int]) -> str:
    """Return what an answer is worth, where the truth is known."""
    if any(each.single and each.first not in changed for each in answer.changes):
        return "wrong"
    if len(answer.changes) != len(changed):
        return "missed" if changed else "wrong"
    pairs = list(zip(answer.changes, changed, strict=True))
    if any(not each.first <= at <= each.last for each, at in pairs):
        return "wrong"
    if all(each.single for each in answer.changes):
        return "right" if changed or answer.decided else "open"
    return "range"


def case(number: int, noise: float, planted: str, searches: int = SEARCHES) -> BisectCase:
    """Search so many histories of one kind."""
    draw = np.random.default_rng((SEED, number))
    drift = noise if "drifts" in planted else 0.0
    said: Counter[str] = Counter()
    comparisons, rounds = [], []
    git = dict.fromkeys(map(str, GIT_PROCESSES), 0)
    for _ in range(searches):
        sizes = PLANTED[planted]
        at = np.sort(draw.choice(np.arange(1, COMMITS + 1), len(sizes), replace=False)).tolist()
        levels = np.zeros(COMMITS + 1)
        for commit, size in zip(at, sizes, strict=True):
            levels[commit:] += math.log1p(size)
        found = search(levels, noise, drift, draw)
        said[word(found.answer(), at)] += 1
        comparisons.append(len(found.compared))
        rounds.append(sum(len(each.over_good) for each in found.compared))
        # Where both ends are alike, it is asked for what would be a loss of a tenth.
        threshold = (levels[-1] or math.log1p(0.10)) / 2
        for processes in GIT_PROCESSES:

            def is_bad(commit: int) -> bool:
                speed = draw.normal(0, drift)
                taken = levels[commit] + draw.normal(0, noise, processes) + speed  # noqa: B023  # called at once
                return bool(np.median(taken) > threshold)  # noqa: B023  # called at once

            git[str(processes)] += git_bisect(is_bad) in at
    return BisectCase(
        noise=noise,
        planted=planted,
        searches=searches,
        said=dict(sorted(said.items())),
        comparisons=round(fmean(comparisons), 1),
        most=max(comparisons),
        rounds=median(rounds),
        git=git,
    )


def _share(hits: int, of: int) -> str:
    interval = binomtest(hits, of).proportion_ci(method="wilson")
    return f"{hits / of:.1%} [{interval.low:.1%}, {interval.high:.1%}]"


def page(told: Sequence[BisectCase]) -> str:
    """Return the study as Markdown."""
    lines = [
        "# How good are bisections?",
        "",
        f"{told[0].searches:,} simulated histories of {COMMITS} commits of each kind, seed {SEED}:"
        " where they change is drawn, and how far processes scatter. Searched for changes of more"
        f" than {MARGIN:.0%}. Written by `python studies/bisect_study.py`; intervals are Wilson's,"
        " at 95 %.",
        "",
        "*Right*: all commits that changed were named, each by itself, and no other; without a"
        " change, it was said that there is none, at 99 %. *Range*: each change is in a range of"
        " its own that was given. *Missed*: fewer changes, or more, were told, and no single commit"
        " wrongly. *Wrong*: a commit was named that did not change, or a range without a change."
        " *Open*: no change was found, and that there is none was not sure either. A search may"
        f" take {most_comparisons(COMMITS)} comparisons; a round of one is two pairs of processes.",
        "",
        "| noise | planted | right | range | missed | wrong | open | comparisons | most | rounds |",
        "| ---: | --- | --- | ---: | ---: | --- | ---: | ---: | ---: | ---: |",
    ]
    for each in told:
        counts = [each.said.get(name, 0) for name in ("right", "range", "missed", "wrong", "open")]
        right, within, missed, wrong, left = counts
        n = each.searches
        lines.append(
            f"| {each.noise:.0%} | {each.planted} | {_share(right, n)} | {within / n:.1%}"
            f" | {missed / n:.1%} | {_share(wrong, n)} | {left / n:.1%} | {each.comparisons:g}"
            f" | {each.most} | {each.rounds:g} |"
        )
    lines += [
        "",
        "## `git bisect run` on the same noise",
        "",
        "It runs a script that is red where the median of some processes is above a threshold,"
        " which is half-way between both levels. It takes every answer for true, knows of one"
        " change, and always names a commit. The share of searches that named one that changed:",
        "",
        f"| noise | planted | {' | '.join(map('{} a commit'.format, GIT_PROCESSES))}"
        " | perfsuite: right |",
        "| ---: | --- | --- | --- | --- |",
    ]
    for each in told:
        cells = [_share(hits, each.searches) for hits in each.git.values()]
        cells.append(_share(each.said.get("right", 0), each.searches))
        lines.append(f"| {each.noise:.0%} | {each.planted} | {' | '.join(cells)} |")
    lines += [
        "",
        "Of two changes it can name one, which counts here; perfsuite has to name both. *Then back*"
        " changes nothing between the ends: it is seen where one of the commits that are looked at"
        " in between lies inside, which those that are close to each other may not.",
    ]
    return "\n".join(lines)


def main() -> int:
    """Run the study and write its page and its figures."""
    kinds = list(product(NOISES, PLANTED))
    noises, names = zip(*kinds, strict=True)
    with ProcessPoolExecutor() as pool:
        told = list(pool.map(case, range(len(kinds)), noises, names))
    write_whole(FOLDER / "bisect.json", msgspec.json.format(msgspec.json.encode(told), indent=1))
    write_whole(FOLDER / "bisect.md", page(told).encode())
    print(f"wrote {FOLDER / 'bisect.md'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
