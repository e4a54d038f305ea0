"""Ranks' own times, simulated: the slow one is named, a healthy one never; waiting is no work."""

import random
from collections.abc import Callable, Sequence
from statistics import fmean

import numpy as np
import pytest

from perfsuite.judging.blocks import Block
from perfsuite.judging.gates import Outcome, Verdict
from perfsuite.judging.interleaving import Duet, Quad
from perfsuite.judging.rank_times import (
    beside_others,
    exposed_share,
    judge_slow_ranks,
    median_of_others,
    overlap,
    rank_times,
    rounds_of,
)
from perfsuite.judging.stopping import LOOKS, sample

STEP_S, MARGIN, CONFIDENCE = 0.01, 0.05, 0.99

Own = Callable[[int], Sequence[float]]
"""Seconds a step of each rank by itself, in a block of that number."""


def block(ranks_s: Sequence[float], throttled: tuple[str, ...] = ()) -> Block:
    return Block(steps=5, wall_s=max(ranks_s), ranks_s=tuple(ranks_s), throttled=throttled)


def quads(own: Own, waited_s: float = 0.0) -> Callable[[int], Quad]:
    """Return what takes a quad: A is all ranks, who wait for the slowest one, B each by itself."""

    def take(index: int) -> Quad:
        order = "BAAB" if index % 2 else "ABBA"
        blocks = []
        for place, letter in enumerate(order):
            times_s = own(4 * index + place)
            together = [max(times_s) + waited_s] * len(times_s)
            blocks.append(block(together if letter == "A" else times_s))
        return Quad(order=order, blocks=tuple(blocks))

    return take


def steady(*factors: float) -> Own:
    """Return ranks that are almost free of noise."""
    draw = random.Random(0)
    return lambda _: [STEP_S * each * draw.lognormvariate(0, 0.001) for each in factors]


def noisy(
    draw: random.Random, factors: Sequence[float], spread: float = 0.03
) -> Callable[[int], list[float]]:
    """Return ranks with noise of their own, and a drift and stalls that all of them share."""

    def own(number: int) -> list[float]:
        shared = (1 + 0.002 * number) * (1.5 if draw.random() < 0.1 else 1.0)
        return [STEP_S * shared * each * draw.lognormvariate(0, spread) for each in factors]

    return own


def judged(taken: Sequence[Quad], margin: float = MARGIN) -> Verdict:
    return judge_slow_ranks(Duet(tuple(taken)), "B", margin, confidence=CONFIDENCE)


def sampled(own: Own, margin: float = MARGIN) -> Verdict:
    """Return the verdict once it is clear, as a session samples."""
    taken = sample(
        quads(own),
        clear=lambda so_far: judged(so_far, margin).outcome is not Outcome.INCONCLUSIVE,
        budget_s=1e9,
        now=lambda: 0.0,
    )
    return judged(taken, margin)


@pytest.mark.parametrize(("ranks", "slow"), [(2, 0), (2, 1), (8, 3), (64, 63)])
def test_a_rank_that_is_slower_by_15_per_cent_is_named_10_of_10(ranks: int, slow: int) -> None:
    factors = [1.15 if rank == slow else 1.0 for rank in range(ranks)]
    for trial in range(10):
        verdict = sampled(noisy(random.Random(trial), factors))
        assert verdict.outcome is Outcome.FAIL
        assert verdict.figure.startswith(f"rank {slow} takes 1.1")
        assert verdict.figure.count("rank") == 1


@pytest.mark.parametrize(("ranks", "trials"), [(2, 100), (8, 40), (64, 10)])
def test_ranks_that_are_alike_make_no_alarm_in_many_trials(ranks: int, trials: int) -> None:
    outcomes = {
        sampled(noisy(random.Random(trial), [1.0] * ranks)).outcome for trial in range(trials)
    }
    assert outcomes == {Outcome.PASS}


def test_at_the_margin_itself_no_more_is_named_than_the_confidence_allows() -> None:
    # Two ranks, of which one is slower by just what is allowed: the hardest healthy case.
    trials = 200
    named = sum(
        judged([*map(quads(noisy(random.Random(trial), [1.0, 1.05])), range(16))]).outcome
        is Outcome.FAIL
        for trial in range(trials)
    )
    assert named <= 0.02 * trials


def test_a_drift_and_stalls_that_all_share_are_nobody_s() -> None:
    own = noisy(random.Random(1), [1.0] * 4, spread=0.001)
    assert sampled(own, margin=0.01).outcome is Outcome.PASS


def test_several_slow_ranks_are_named_the_slowest_first_and_the_rest_are_counted() -> None:
    factors = [1.0] * 12 + [1.2, 1.4, 1.3, 1.25, 1.5]
    verdict = sampled(noisy(random.Random(2), factors, spread=0.005))
    named = [part.split()[1] for part in verdict.figure.split("; ")]
    assert named == ["16", "13", "14"]
    assert verdict.figure.endswith("and 2 more ranks")
    assert verdict.threshold == "at most 1.05x of the other ranks' own time"


def test_of_two_ranks_one_alone_can_be_slow() -> None:
    verdict = sampled(noisy(random.Random(3), [1.0, 0.8], spread=0.005))
    assert verdict.outcome is Outcome.FAIL
    assert verdict.figure.startswith("rank 0 takes 1.2")


def test_waiting_for_the_slowest_is_not_taken_for_work() -> None:
    turns = Duet(tuple(map(quads(noisy(random.Random(4), [1.0, 1.2], 0.001), 0.005), range(9))))
    together = judge_slow_ranks(turns, "A", MARGIN, confidence=CONFIDENCE)
    apart = judge_slow_ranks(turns, "B", MARGIN, confidence=CONFIDENCE)
    assert (together.outcome, apart.outcome) == (Outcome.PASS, Outcome.FAIL)


def test_many_ranks_need_more_rounds_before_one_may_be_named() -> None:
    def slow_among(ranks: int, rounds: int) -> Verdict:
        factors = [2.0, *[1.0] * (ranks - 1)]
        return judged([*map(quads(noisy(random.Random(5), factors, 0.001)), range(rounds))])

    assert slow_among(2, LOOKS[0]).outcome is Outcome.FAIL
    few = slow_among(1000, LOOKS[0])
    assert (few.outcome, few.figure) == (Outcome.INCONCLUSIVE, "unknown")
    assert few.reason == "1000 ranks need 19 rounds, there were 9: give it more --perf-budget"
    assert slow_among(1000, 19).figure.startswith("rank 0 takes 2.0")


def test_a_rank_that_is_throttled_in_less_than_half_of_the_rounds_is_a_slow_one() -> None:
    own, hottest = (
        noisy(random.Random(6), [1.0] * 4, 0.005),
        random.Random(7).sample(range(200), 90),
    )

    def take(index: int) -> Quad:
        hot = index in hottest
        blocks = []
        for place in range(4):
            times_s = own(4 * index + place)
            times_s[2] *= 1.4 if hot else 1.0
            blocks.append(block(times_s, ("heat (rank 2)",) if hot else ()))
        return Quad(order="ABBA", blocks=tuple(blocks))

    turns = Duet(tuple(map(take, range(200))))
    assert turns.sifted.decides  # without them nobody would be slow
    verdict = judged(turns.quads)
    assert verdict.outcome is Outcome.FAIL
    assert verdict.figure.startswith("rank 2 takes 1.")
    assert verdict.figure.count("rank") == 1


def test_what_is_exposed_is_unknown_where_most_was_throttled() -> None:
    hot = Quad(order="ABBA", blocks=(block([1.0, 2.0], ("heat",)),) * 4)
    assert judged([hot] * 9).figure.startswith("rank 1 takes 2.000x")
    assert rank_times(Duet((hot,) * 9), 0.1, confidence=CONFIDENCE) is None


@pytest.mark.parametrize("ranks", [2, 3, 6, 7])
def test_a_rank_is_held_against_the_median_of_the_others(ranks: int) -> None:
    rounds = np.random.default_rng(ranks).integers(1, 5, size=(50, ranks)).astype(float)
    by_hand = [[np.median(np.delete(row, rank)) for rank in range(ranks)] for row in rounds]
    assert np.array_equal(median_of_others(rounds), by_hand)


def test_both_blocks_of_a_round_are_one_observation_of_each_rank() -> None:
    times = iter([[1.0, 1.0], [1.0, 2.0], [3.0, 4.0], [1.0, 1.0]])
    turns = Duet((quads(lambda _: next(times))(0),))
    assert rounds_of(turns, "B").tolist() == [[2.0, 3.0]]
    assert beside_others(rounds_of(turns, "B"), confidence=0.99)[0].unknown


def test_what_is_exposed_is_what_a_step_takes_beyond_the_slowest_rank_s_own() -> None:
    turns = Duet(tuple(map(quads(steady(1.0, 1.1), waited_s=0.011), range(9))))
    share = exposed_share(turns, confidence=CONFIDENCE)
    assert share.low < share.value < share.high
    assert share.value == pytest.approx(0.5, abs=0.01)
    found = rank_times(turns, 0.022, confidence=CONFIDENCE)
    assert found is not None
    assert found.exposed_s == pytest.approx(0.011, rel=0.1)
    assert found.exposed_low_s < found.exposed_s < found.exposed_high_s
    assert found.overlap == pytest.approx(0.5, abs=0.05)
    assert [each.rank for each in found.ranks] == [0, 1]
    assert found.ranks[1].ratio == pytest.approx(1.1, abs=0.01)
    assert fmean(each.own_s for each in found.ranks) < found.compute_s < found.step_s
    assert "exposed; communication alone takes 22 ms, of which" in str(found)


def test_overlap_is_within_its_bounds_and_unknown_where_noise_is_larger() -> None:
    own = steady(1.0, 1.0)
    share = exposed_share(Duet(tuple(map(quads(own, 0.004), range(9)))), confidence=CONFIDENCE)
    assert overlap(share, 0.014, 0.002) == 0.0  # it waits for longer than that
    assert overlap(share, 0.014, 1e-6) is None
    assert overlap(share, 0.014, None) is None
    hidden = exposed_share(Duet(tuple(map(quads(own), range(9)))), confidence=CONFIDENCE)
    assert overlap(hidden, 0.01, 0.005) == pytest.approx(1.0, abs=0.05)
