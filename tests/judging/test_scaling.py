"""Scaling on simulated turns: what is lost is told, and what scales as it should is green."""

import random

import pytest

from perfsuite.judging.blocks import Block
from perfsuite.judging.gates import Outcome
from perfsuite.judging.interleaving import Duet, quad
from perfsuite.judging.scaling import efficiency, judge_scaling, scaling_of

RANKS = 8


def turns(alone_s: float, step_s: float, throttled: tuple[str, ...] = ()) -> Duet:
    """Return nine rounds of one alone, arm A, and all ranks, arm B."""
    draw = random.Random(0)

    def turn(seconds: float) -> Block:
        return Block(steps=5, wall_s=seconds * draw.lognormvariate(0, 0.01), throttled=throttled)

    return Duet(
        tuple(quad(lambda: turn(alone_s), lambda: turn(step_s), index) for index in range(9))
    )


@pytest.mark.parametrize(
    ("step_s", "outcome"),
    [(1.0, Outcome.PASS), (1.1, Outcome.PASS), (1.25, Outcome.INCONCLUSIVE), (3.0, Outcome.FAIL)],
)
def test_weak_scaling_is_one_alone_beside_all_with_a_batch_each(
    step_s: float, outcome: Outcome
) -> None:
    verdict = judge_scaling("weak", turns(1.0, step_s), 0.8, parts=1, confidence=0.99)
    assert (verdict.gate, verdict.outcome) == ("weak_scaling", outcome)


@pytest.mark.parametrize(
    ("step_s", "outcome"), [(1.0, Outcome.PASS), (2.0, Outcome.FAIL), (8.0, Outcome.FAIL)]
)
def test_strong_scaling_shares_one_s_batch_among_all(step_s: float, outcome: Outcome) -> None:
    verdict = judge_scaling("strong", turns(8.0, step_s), 0.8, parts=RANKS, confidence=0.99)
    assert (verdict.gate, verdict.outcome) == ("strong_scaling", outcome)
    found = efficiency(turns(8.0, step_s), parts=RANKS, confidence=0.99)
    assert found.low < 1 / step_s < found.high


def test_without_a_threshold_it_is_told_and_not_gated() -> None:
    verdict = judge_scaling("weak", turns(1.0, 2.0), None, parts=1, confidence=0.99)
    assert verdict.outcome is Outcome.NOT_GATED
    assert verdict.figure == "0.497 of ideal [0.490, 0.507]"


def test_what_is_kept_says_of_what_or_why_not() -> None:
    kept = scaling_of(
        "strong", turns(8.0, 2.0), ranks=RANKS, parts=RANKS, samples=256, confidence=0.99
    )
    assert (kept.how, kept.ranks, kept.samples) == ("strong", RANKS, 256)
    assert kept.efficiency == pytest.approx(0.5, rel=0.05)
    hot = turns(1.0, 1.0, ("heat",))
    kept = scaling_of("weak", hot, ranks=2, parts=1, samples=32, confidence=0.99)
    assert kept.efficiency is None
    assert "throttled" in kept.why_not
