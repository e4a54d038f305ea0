"""Creep: many accepted changes are judged by their product."""

import math
import random

import pytest

from perfsuite.judging.creep import AcceptedFigure, judge_creep
from perfsuite.judging.gates import Outcome, Verdict
from perfsuite.judging.spreads import Spread

SPREAD = Spread(0.01, math.inf)


def accepted(value: float, day: int, *, measured: str = "s", torch: str = "2.14") -> AcceptedFigure:
    when = f"2026-01-{day:02} {day:012x}"
    return AcceptedFigure(
        when=when, value=value, runs=3, measured=measured, software=f"torch {torch}"
    )


def judged(
    *chain: AcceptedFigure, better: str = "lower", spread: Spread = SPREAD, margin: float = 0.1
) -> Verdict:
    verdict = judge_creep(
        "creep step_s", chain, margin=margin, better=better, spread=spread, confidence=0.99
    )
    assert verdict is not None
    return verdict


def losses(share: float, count: int = 10) -> list[AcceptedFigure]:
    return [accepted(0.01 * (1 + share) ** n, n + 1) for n in range(count + 1)]


def test_ten_accepted_losses_of_two_per_cent_are_twenty_two() -> None:
    verdict = judged(*losses(0.02))
    assert verdict.outcome is Outcome.FAIL
    assert verdict.figure.startswith("1.219x [1.19")
    assert verdict.threshold == "accepted changes of at most 10.0% in all"
    links = [f"2026-01-{day:02} {day:012x} +2.0%" for day in range(2, 12)]
    assert verdict.reason == f"accepted since 2026-01-01 000000000001: {', '.join(links)}"


def test_of_a_rate_less_is_a_loss() -> None:
    falling = [accepted(100 / 1.02**n, n + 1) for n in range(11)]
    assert judged(*falling, better="higher").outcome is Outcome.FAIL
    assert judged(*falling).outcome is Outcome.PASS
    assert judged(*losses(0.02), better="higher").outcome is Outcome.PASS


def test_ups_and_downs_are_no_creep() -> None:
    draw, said = random.Random(1), []
    for _ in range(1000):
        chain = [accepted(math.exp(draw.gauss(0, 0.01 / math.sqrt(3))), n + 1) for n in range(11)]
        said.append(judged(*chain).outcome)
    assert set(said) == {Outcome.PASS}


def test_a_loss_that_was_made_good_does_not_count() -> None:
    assert judged(*losses(0.02), accepted(0.01, 12)).outcome is Outcome.PASS


def test_near_the_margin_it_says_what_would_help() -> None:
    verdict = judged(accepted(1.0, 1), accepted(1.1, 2))
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "too noisy to say; promote more runs, or let `since`" in verdict.reason


def test_few_runs_widen_it() -> None:
    chain = [accepted(1.0, 1), accepted(1.14, 2)]
    assert judged(*chain).outcome is Outcome.FAIL
    assert judged(*chain, spread=Spread(0.01, 2)).outcome is Outcome.INCONCLUSIVE


def test_bytes_add_up_exactly() -> None:
    exact = Spread(0.0, math.inf)
    assert judged(accepted(1000, 1), accepted(1099, 2), spread=exact).outcome is Outcome.PASS
    assert judged(accepted(1000, 1), accepted(1101, 2), spread=exact).outcome is Outcome.FAIL


def test_nothing_was_replaced() -> None:
    for chain in ([], [accepted(1.0, 1)]):
        assert not judge_creep(
            "creep a", chain, margin=0.1, better="lower", spread=SPREAD, confidence=0.99
        )


def test_a_change_of_what_is_measured_counts_nothing_and_is_named() -> None:
    before = losses(0.02, 4)
    after = [accepted(5.0 * 1.02**n, 6 + n, measured="s at another batch size") for n in range(6)]
    verdict = judged(*before, *after)
    assert verdict.figure.startswith(f"{1.02**9:.3f}x")
    assert "2026-01-06 000000000006 measured differently, not counted" in verdict.reason
    assert verdict.outcome is Outcome.FAIL


def test_nothing_alike_is_no_verdict_and_is_told() -> None:
    verdict = judged(accepted(1.0, 1), accepted(9.0, 2, measured="s at another batch size"))
    assert verdict.outcome is Outcome.NOT_GATED
    assert "measured differently, not counted" in verdict.reason


@pytest.mark.parametrize("torch", ["2.14", "2.15"])
def test_new_software_counts_and_is_named(torch: str) -> None:
    verdict = judged(accepted(1.0, 1), accepted(1.2, 2, torch=torch))
    assert verdict.outcome is Outcome.FAIL
    assert ("+20.0% (torch 2.14 -> torch 2.15)" in verdict.reason) is (torch == "2.15")
