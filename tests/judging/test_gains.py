"""What a lever gains, in words, and whether losses are alike."""

import math

import pytest

from perfsuite.judging.estimates import Estimate
from perfsuite.judging.gains import LeverTried, losses_alike, told_gain, word_of
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
