"""Sampling ends when the verdict is clear or the budget is spent, and false alarms stay rare."""

import math
import random
from collections.abc import Sequence

import pytest
from fakes import FakeTime

from perfsuite.judging.estimates import paired_ratio
from perfsuite.judging.gates import Outcome, at_most
from perfsuite.judging.stopping import LOOKS, at_each_look, sample


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


def test_sampling_ends_at_the_first_look_that_is_clear(time: FakeTime) -> None:
    asked: list[int] = []

    def clear(observed: Sequence[int]) -> bool:
        asked.append(len(observed))
        return len(observed) >= 20

    assert sample(int, clear=clear, budget_s=1e9, now=time) == list(range(LOOKS[2]))
    assert asked == list(LOOKS[:3])


@pytest.mark.parametrize(("budget_s", "n"), [(1.0, 12), (12.0, 12), (15.0, 15), (60.0, 60)])
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
        clear=lambda seen: len(seen) > 12,
        budget_s=1e9,
        progress=lambda done, of: told.append((done, of)),
        now=time,
    )
    assert told[0] == (1, 12)
    assert told[-1] == (18, 18)


def excludes_one(ratios: Sequence[float], confidence: float) -> bool:
    found = paired_ratio(ratios, [1.0] * len(ratios), confidence=confidence)
    return not found.low <= 1 <= found.high


@pytest.mark.parametrize("phi", [0.0, 0.3], ids=["independent", "autocorrelated"])
def test_several_looks_give_no_more_false_alarms_than_the_confidence_allows(phi: float) -> None:
    noise = random.Random(3)
    trials, misses, naive = 400, 0, 0

    for _ in range(trials):
        drift = 0.0
        ratios: list[float] = []
        for _ in range(LOOKS[-1]):
            drift = phi * drift + noise.gauss(0, 0.02)
            ratios.append(math.exp(drift))
        # What the wider interval excludes the narrower one excludes too: look there first.
        alarms = [look for look in LOOKS if excludes_one(ratios[:look], 0.99)]
        naive += bool(alarms)
        misses += any(excludes_one(ratios[:look], at_each_look(0.99)) for look in alarms)
    # 1 % is promised for independent observations: 400 of them miss more than 9 times in 1e-2.
    assert misses <= (9 if phi == 0 else 16)
    assert naive > 2 * misses


def test_a_real_difference_ends_the_sampling_early(time: FakeTime) -> None:
    noise = random.Random(4)

    def clear(ratios: Sequence[float]) -> bool:
        ratio = paired_ratio(ratios, [1.0] * len(ratios), confidence=at_each_look(0.99))
        return at_most("g", ratio, 1.02).outcome is not Outcome.INCONCLUSIVE

    ratios = sample(
        lambda _: 1.2 * math.exp(noise.gauss(0, 0.03)), clear=clear, budget_s=1e9, now=time
    )
    assert len(ratios) == LOOKS[0]
