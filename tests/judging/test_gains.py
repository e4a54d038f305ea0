"""What a lever gains, in words, and whether losses are alike."""

import math

import pytest

from perfsuite.judging.estimates import Estimate
from perfsuite.judging.gains import (
    NO_MEMORY,
    LeverTried,
    all_without_memory,
    losses_alike,
    told_gain,
    weights_alike,
    word_of,
)
from perfsuite.judging.gates import Outcome


def gain(value: float, low: float, high: float) -> Estimate:
    return Estimate(value=value, low=low, high=high, confidence=0.99, n=9)


@pytest.mark.parametrize(
    ("found", "word", "told"),
    [
        (gain(1.77, 1.71, 1.83), "faster", "1.77x [1.71, 1.83]"),
        (gain(0.8, 0.7, 0.9), "slower", "slower: 0.80x [0.70, 0.90]"),
        (gain(1.01, 0.99, 1.03), "no change", "no change: 1.01x [0.99, 1.03]"),
        (gain(1.003, 1.002, 1.004), "no change", "no change: 1.00x [1.00, 1.00]"),
        (gain(0.995, 0.99, 0.999), "no change", "no change: 0.99x [0.99, 1.00]"),
        (gain(1.0, 1.0, 1.0), "no change", "no change: 1.00x [1.00, 1.00]"),
        (gain(1.0, 0.89, 2.59), "cannot be told", "cannot be told: 1.00x [0.89, 2.59]"),
        (gain(1.0, 0.96, 1.0), "cannot be told", "cannot be told: 1.00x [0.96, 1.00]"),
        (gain(1.005, 1.001, 1.1), "cannot be told", "cannot be told: 1.00x [1.00, 1.10]"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_only_what_is_worth_it_and_sure_is_a_change(found: Estimate, word: str, told: str) -> None:
    assert word_of(found) == word
    assert told_gain(found) == told


def test_a_gain_that_is_not_known_is_not_told_as_a_figure() -> None:
    assert told_gain(Estimate.no_answer("throttled")) == "unknown: throttled"


def test_a_lever_is_told_in_a_line_and_what_slowed_it_below() -> None:
    tried = LeverTried(
        name="channels_last",
        samples_per_s=1234.5,
        gain=gain(0.8, 0.7, 0.9),
        share_of_ceiling=0.213,
        memory_bytes=12_000_000,
        bound="host",
        slower_by=["aten::add: 1 ms -> 3 ms"],
    )
    assert str(tried).splitlines() == [
        "channels_last: slower: 0.80x [0.70, 0.90], 1,234 samples/s, 21.3% of the ceiling, 12 MB,"
        " host-bound",
        "    aten::add: 1 ms -> 3 ms",
    ]
    assert str(LeverTried(name="graph", left_out="none there")) == "graph: left out: none there"
    assert LeverTried(name="graph", left_out="none there").word == "left out"


@pytest.mark.parametrize(
    ("losses", "outcome"),
    [
        ([2.0, 1.08], Outcome.PASS),
        ([2.0, 1.1], Outcome.FAIL),
        ([1.9, 1.1], Outcome.FAIL),
        ([math.nan, 1.0], Outcome.FAIL),
        ([2.0, math.inf], Outcome.FAIL),
    ],
)
def test_first_and_mean_loss_have_to_be_those_of_the_plain_step(
    losses: list[float], outcome: Outcome
) -> None:
    assert losses_alike("lever", losses, [2.0, 1.0], 0.03).outcome is outcome


@pytest.mark.parametrize(
    ("losses", "again", "outcome"),
    [
        ([2.0, 1.1], [1.02, 1.03], Outcome.NOT_GATED),  # off by 3.3 %, itself by 1 %
        ([2.0, 1.0], [1.02, 1.03], Outcome.PASS),
        ([2.0, 1.2], [1.02, 1.03], Outcome.FAIL),  # off by 6.7 %
        ([2.0, 1.2], [1.02, math.nan], Outcome.NOT_GATED),
        ([2.1, 1.0], [1.02, 1.03], Outcome.FAIL),  # the first loss, which is of equal weights
        ([2.0, math.nan], [1.02, math.nan], Outcome.FAIL),
        ([2.0, 3.1], [1.02, math.nan], Outcome.FAIL),  # half as much again is no noise
        ([math.nan, math.nan], [1.02, math.nan], Outcome.FAIL),
    ],
)
def test_a_mean_loss_that_perturbed_weights_move_as_far_tells_nothing(
    losses: list[float], again: list[float], outcome: Outcome
) -> None:
    perturbed = [[2.0, each] for each in again]
    assert losses_alike("lever", losses, [2.0, 1.0], 0.03, perturbed).outcome is outcome


@pytest.mark.parametrize(
    ("moved", "again", "outcome"),
    [
        (1.2, [1.01, 0.94], Outcome.NOT_GATED),
        (1.3, [1.01, 0.94], Outcome.FAIL),
        (0.0, [0.5, 1.0], Outcome.FAIL),  # what does not move at all is no noise
    ],
)
def test_weights_that_perturbed_ones_move_as_far_tell_nothing(
    moved: float, again: list[float], outcome: Outcome
) -> None:
    assert weights_alike("lever", moved, 1.0, again).outcome is outcome


@pytest.mark.parametrize(
    ("losses", "outcome"), [([0.0, 0.0], Outcome.PASS), ([0.0, 1e-9], Outcome.FAIL)]
)
def test_a_loss_of_zero_has_to_stay_one(losses: list[float], outcome: Outcome) -> None:
    assert losses_alike("lever", losses, [0.0, 0.0], 0.03).outcome is outcome


@pytest.mark.parametrize(
    ("moved", "outcome"),
    [(1.05, Outcome.PASS), (0.0, Outcome.FAIL), (2.0, Outcome.FAIL), (math.nan, Outcome.FAIL)],
)
def test_weights_have_to_move_as_far_as_by_the_plain_step(moved: float, outcome: Outcome) -> None:
    assert weights_alike("lever", moved, 1.0).outcome is outcome


def test_only_what_is_surely_faster_has_gained() -> None:
    tried = [
        LeverTried(name="foot"),
        LeverTried(name="faster", gain=gain(1.2, 1.1, 1.3)),
        LeverTried(name="unresolved", gain=gain(1.5, 0.9, 2.5)),
        LeverTried(name="left out", left_out="none there"),
    ]
    assert [each.surely_gained for each in tried] == [1.0, 1.2, 1.0, 1.0]


def test_that_no_lever_had_room_is_red() -> None:
    foot, without = LeverTried(name="foot"), LeverTried(name="a", left_out=f"{NO_MEMORY}: full")
    (verdict,) = all_without_memory([foot, without, LeverTried(name="b", left_out="no graphs")])
    assert verdict.outcome is Outcome.FAIL
    assert verdict.figure == f"a: {NO_MEMORY}: full"
    tried = LeverTried(name="b", gain=gain(1.0, 1.0, 1.0))
    for found in ([foot], [foot, LeverTried(name="b", left_out="none")], [foot, without, tried]):
        assert all_without_memory(found) == []
