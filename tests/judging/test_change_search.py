"""A search finds the commits that changed, says where none did, and names none that it cannot."""

import math
import random
from collections.abc import Callable, Sequence

import pytest

from perfsuite.judging.change_posterior import CommitCompared, posterior
from perfsuite.judging.change_search import (
    CONFIDENCE,
    FIRST_ROUNDS,
    LOOKS,
    ChangeSearch,
    most_comparisons,
)

MARGIN = 0.03
Compare = Callable[[int], CommitCompared | None]


def history(n: int, changes: dict[int, float]) -> list[float]:
    """Return the figure of commits 0 to n: by what shares it changes at which."""
    figures = [1.0]
    for commit in range(1, n + 1):
        figures.append(figures[-1] * (1 + changes.get(commit, 0.0)))
    return figures


def searched(
    figures: Sequence[float],
    *,
    noise: float = 0.02,
    seed: int = 0,
    prior: Sequence[float] | None = None,
    broken: Sequence[int] = (),
) -> ChangeSearch:
    """Search to the end; a ratio scatters as two processes do, and broken commits are skipped."""
    draw = random.Random(seed)
    n = len(figures) - 1
    search = ChangeSearch(prior or [1.0] * n, margin=MARGIN)

    def ratio(after: int, before: int) -> float:
        scatter = draw.gauss(0, noise) - draw.gauss(0, noise)
        return figures[after] / figures[before] * math.exp(scatter)

    while (commit := search.next()) is not None:
        if commit in broken:
            search.skip(commit)
            continue
        over_good: tuple[float, ...] = ()
        bad_over: tuple[float, ...] = ()
        while True:
            over_good += (ratio(commit, 0),)
            bad_over += (ratio(n, commit),) if commit != n else ()
            taken = CommitCompared(commit=commit, over_good=over_good, bad_over=bad_over)
            if not search.unclear(taken):
                break
        search.tell(taken)
    assert len(search.compared) <= most_comparisons(n)
    return search


@pytest.mark.parametrize("at", [1, 17, 40, 64])
@pytest.mark.parametrize("size", [0.10, -0.10])
def test_one_change_is_named_with_its_size(at: int, size: float) -> None:
    answer = searched(history(64, {at: size}), seed=at).answer()
    assert answer.decided
    (change,) = answer.changes
    assert change.single
    assert change.first == at
    assert change.probability >= CONFIDENCE
    assert change.ratio.low <= 1 + size <= change.ratio.high


def test_without_a_change_it_says_so() -> None:
    search = searched(history(64, {}))
    assert search.answer().decided
    assert search.answer().changes == ()


def test_what_is_within_the_margin_is_no_change() -> None:
    answer = searched(history(64, {20: 0.01}), noise=0.002).answer()
    assert answer.decided
    assert answer.changes == ()


@pytest.mark.parametrize(
    "changes", [{10: 0.1, 50: 0.1}, {30: 0.2, 31: -0.1}, {20: 0.10, 45: 1 / 1.1 - 1}], ids=str
)
def test_two_changes_are_told_apart_also_where_they_cancel(changes: dict[int, float]) -> None:
    answer = searched(history(64, changes)).answer()
    assert {each.first: each.single for each in answer.changes} == dict.fromkeys(changes, True)
    for each in answer.changes:
        assert each.ratio.low <= 1 + changes[each.first] <= each.ratio.high


def test_a_creep_of_small_changes_is_put_on_no_single_commit() -> None:
    answer = searched(history(64, dict.fromkeys(range(1, 65), 0.002)), noise=0.01).answer()
    assert answer.changes
    assert not any(each.single for each in answer.changes)


def test_more_noise_ends_in_a_range_and_in_no_guess() -> None:
    figures = history(64, {23: 0.05})
    for seed in range(5):
        search = searched(figures, noise=0.08, seed=seed)
        assert all(
            each.first <= 23 <= each.last if not each.single else each.first == 23
            for each in search.answer().changes
        )


def test_commits_that_cannot_be_compared_end_in_a_range_that_holds_them() -> None:
    broken = (22, 23, 24)
    (change,) = searched(history(64, {23: 0.1}), broken=broken).answer().changes
    assert (change.first, change.last) == (22, 25)
    assert change.probability >= CONFIDENCE
    search = searched(history(64, {23: 0.1}), broken=broken)
    assert not search.answer().decided
    assert not {each.commit for each in search.compared} & set(broken)


def test_commits_that_touch_nothing_are_left_out() -> None:
    prior = [1.0 if commit in (5, 40, 41) else 0.0 for commit in range(1, 65)]
    search = searched(history(64, {40: 0.1}), prior=prior)
    assert [each.first for each in search.answer().changes] == [40]
    assert {each.commit for each in search.compared} <= {5, 40, 64}


def test_a_commit_that_is_suspected_is_compared_first() -> None:
    prior = [100.0 if commit == 48 else 1.0 for commit in range(1, 65)]
    search = searched(history(64, {48: 0.1}), prior=prior)
    assert [each.first for each in search.answer().changes] == [48]
    assert len(search.compared) <= 4
    innocent = searched(history(64, {12: 0.1}), prior=prior)
    assert [each.first for each in innocent.answer().changes] == [12]


@pytest.mark.parametrize("n", [1, 2, 3])
def test_few_commits(n: int) -> None:
    (change,) = searched(history(n, {n: 0.1})).answer().changes
    assert change.single
    assert change.first == n
    assert searched(history(n, {})).answer().changes == ()


def test_what_repeats_exactly_needs_no_more_than_the_least_rounds() -> None:
    search = searched(history(64, {9: 0.5}), noise=0.0)
    assert [each.first for each in search.answer().changes] == [9]
    ends, *others = (len(each.over_good) for each in search.compared)
    assert ends == FIRST_ROUNDS
    assert set(others) == {LOOKS[0]}


def test_a_noisy_comparison_counts_for_less() -> None:
    def ratios(level: float, noise: float) -> tuple[float, ...]:
        return tuple(level * math.exp(noise * each) for each in (-1.2, 1.2, -0.4, 0.4))

    def compared(noise: float) -> list[CommitCompared]:
        return [
            CommitCompared(commit=4, over_good=ratios(1.1, 0.01) * 3),
            CommitCompared(commit=2, over_good=ratios(1.1, noise), bad_over=ratios(1.0, noise)),
        ]

    calm, noisy = (posterior(compared(noise), [0.25] * 4, MARGIN) for noise in (0.01, 0.1))
    assert calm.at_commits()[:2].sum() > 0.99
    assert noisy.at_commits()[:2].sum() < calm.at_commits()[:2].sum()


def test_a_search_goes_on_among_more_commits_with_what_it_knows() -> None:
    search = searched(history(3, {2: 0.10}), broken=[1])
    more = search.among([1.0] * 9, [3, 5, 9])
    assert [each.commit for each in more.compared] == [
        {2: 5, 3: 9}[each.commit] for each in search.compared
    ]
    (change,) = more.answer().changes
    assert (change.first, change.last) == (1, 5)
    assert more.next() not in (None, 3)
