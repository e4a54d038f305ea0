"""Sampling ends when the verdict is clear or the budget is spent, and false alarms stay rare."""

import math
import random
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from fakes import FakeTime
from scipy.stats import norm

from perfsuite.judging.estimates import Floats, paired_ratio, signed_rank_intervals
from perfsuite.judging.gates import Outcome, at_most
from perfsuite.judging.stopping import LOOKS, Pot, at_each_look, first_look, sample


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


def test_sampling_ends_at_the_first_look_that_is_clear(time: FakeTime) -> None:
    asked: list[int] = []

    def clear(observed: Sequence[int]) -> bool:
        asked.append(len(observed))
        return len(observed) >= 12

    assert sample(int, clear=clear, budget_s=1e9, now=time) == list(range(LOOKS[2]))
    assert asked == list(LOOKS[:3])


@pytest.mark.parametrize(("budget_s", "n"), [(1.0, 9), (9.0, 9), (15.0, 15), (60.0, 60)])
def test_sampling_ends_with_the_budget_but_not_before_the_first_look(
    time: FakeTime, budget_s: float, n: int
) -> None:
    def observe(number: int) -> int:
        time.now_s += 1.0
        return number

    observed = sample(observe, clear=lambda _: False, budget_s=budget_s, now=time)
    assert len(observed) == n


def test_sampling_ends_with_the_last_look(time: FakeTime) -> None:
    observed = sample(int, clear=lambda _: False, budget_s=1e9, now=time)
    assert len(observed) == LOOKS[-1]


def test_progress_counts_up_to_the_next_look(time: FakeTime) -> None:
    told: list[tuple[int, int]] = []
    sample(
        int,
        clear=lambda seen: len(seen) > LOOKS[0],
        budget_s=1e9,
        progress=lambda done, of: told.append((done, of)),
        now=time,
    )
    assert told[0] == (1, LOOKS[0])
    assert told[-1] == (LOOKS[1], LOOKS[1])


def alarms(series: Floats, levels: Sequence[float]) -> Floats:
    """Return the rows that have at any look an interval that excludes nothing at all."""
    found = np.zeros(len(series), dtype=bool)
    for look, level in zip(LOOKS, levels, strict=True):
        seen = series[:, :look]
        # No interval at 99 % excludes zero where the mean is 1.5 standard errors from it.
        far = np.abs(seen.mean(axis=1)) > 1.5 * seen.std(axis=1, ddof=1) / math.sqrt(look)
        asked = np.flatnonzero(far & ~found)
        _, low, high = signed_rank_intervals(seen[asked], confidence=level)
        found[asked] = (low > 0) | (high < 0)
    return series[found]


@pytest.mark.parametrize("phi", [0.0, 0.3], ids=["independent", "autocorrelated"])
def test_several_looks_give_no_more_false_alarms_than_the_confidence_allows(phi: float) -> None:
    series = np.random.default_rng(3).normal(0, 0.02, (400, LOOKS[-1]))
    for at in range(1, LOOKS[-1]):
        series[:, at] += phi * series[:, at - 1]
    naive = alarms(series, [0.99] * len(LOOKS))
    # What a wider interval excludes, a narrower one does: the other rows need not be asked.
    misses = alarms(naive, [at_each_look(0.99, look) for look in LOOKS])
    # 1 % is promised for independent observations: 400 of them miss more than 9 times in 1e-2.
    assert len(misses) <= (9 if phi == 0 else 16)
    assert len(naive) > 2 * len(misses)


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.99, 0.996])
def test_a_walk_crosses_the_looks_as_seldom_as_the_confidence_allows(confidence: float) -> None:
    draw, trials = np.random.default_rng(5), 40_000
    walk, spent = np.zeros(trials), np.zeros(trials, dtype=bool)
    for before, look in pairwise((0, *LOOKS)):
        walk += draw.normal(0, math.sqrt(look - before), trials)
        spent |= norm.sf(walk / math.sqrt(look)) < (1 - at_each_look(confidence, look)) / 2
    error = (1 - confidence) / 2
    assert abs(spent.mean() - error) < 4 * math.sqrt(error / trials)


@pytest.mark.parametrize("confidence", [0.5, 0.99, 0.996])
def test_the_first_look_can_always_tell(confidence: float) -> None:
    level = at_each_look(confidence, LOOKS[0])
    assert paired_ratio([2.0] * LOOKS[0], [1.0] * LOOKS[0], confidence=level).low == 2.0


def test_between_two_looks_the_later_one_s_confidence_holds() -> None:
    assert at_each_look(0.99, 10) == at_each_look(0.99, 11) > at_each_look(0.99, 9)
    assert at_each_look(0.99, 3) == at_each_look(0.99, 9)
    assert at_each_look(0.99, 1000) == at_each_look(0.99, LOOKS[-1])


def test_what_one_benchmark_leaves_later_ones_may_use() -> None:
    pot = Pot(60.0)
    assert pot.budget_s() == 60.0
    pot.took(20.0)
    assert pot.budget_s() == 100.0
    pot.took(70.0)
    assert pot.budget_s() == 90.0
    pot.took(95.0)  # the first look takes what it takes
    assert pot.budget_s() == 60.0


def test_a_real_difference_ends_the_sampling_early(time: FakeTime) -> None:
    noise = random.Random(4)

    def clear(ratios: Sequence[float]) -> bool:
        confidence = at_each_look(0.99, len(ratios))
        ratio = paired_ratio(ratios, [1.0] * len(ratios), confidence=confidence)
        return at_most("g", ratio, 1.02).outcome is not Outcome.INCONCLUSIVE

    ratios = sample(
        lambda _: 1.2 * math.exp(noise.gauss(0, 0.03)), clear=clear, budget_s=1e9, now=time
    )
    assert len(ratios) == LOOKS[0]


@pytest.mark.parametrize("ranks", [8, 1000, 4096])
def test_one_of_many_is_judged_later_and_spends_no_more_than_its_share(ranks: int) -> None:
    error = 0.01 / ranks
    levels = [(1 - at_each_look(1 - 2 * error, look)) / 2 for look in LOOKS]
    begins = LOOKS.index(first_look(error))
    assert begins > 0
    assert all(level < 1e-15 for level in levels[:begins])  # it cannot end there
    assert all(0 < level < error for level in levels[begins:])
    assert 0.5 ** LOOKS[begins] <= levels[begins]  # signs that all agree can
