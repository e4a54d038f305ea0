"""From a suspicion to a verdict: whose word counts, and what is the environment's."""

from dataclasses import replace

import pytest

from perfsuite.judging.confirmation import (
    ENVIRONMENT,
    red_by_code,
    searchable,
    settle,
    suspects,
    unconfirmed,
)
from perfsuite.judging.gates import Outcome, Verdict, missing

GREEN = Verdict(
    gate="compare step_s", outcome=Outcome.PASS, figure="1.00x", threshold="at most 5% worse"
)
UNCLEAR = replace(GREEN, outcome=Outcome.INCONCLUSIVE, figure="1.06x", reason="too noisy to say")
RED = replace(GREEN, outcome=Outcome.FAIL, figure="1.20x")
LOST = missing("compare epoch_s", "epoch_s was not measured", "promote runs without it")

SAME = Verdict(
    gate="against step_s",
    outcome=Outcome.PASS,
    figure="1.001x",
    threshold="the same within 5%",
    reason="8 restarts",
    word="SAME",
)
SLOWER = replace(SAME, outcome=Outcome.FAIL, figure="1.100x", word="SLOWER")


def test_what_is_not_green_is_suspected_and_what_was_not_measured_is_not() -> None:
    assert suspects([GREEN, LOST]) == []
    assert suspects([LOST, replace(RED, gate="compare epoch_s"), UNCLEAR]) == ["epoch_s", "step_s"]


def test_a_bisection_is_asked_for_the_figure_that_the_code_made_red() -> None:
    elsewhere = replace(RED, gate="environment peak_bytes", word=ENVIRONMENT)
    counts, lost = replace(SLOWER, gate="against ledger"), missing("against", "none", "measure one")
    assert red_by_code([SAME, elsewhere, UNCLEAR]) == []
    assert red_by_code([SAME, LOST, counts, SLOWER, RED]) == [LOST, counts, SLOWER, RED]
    assert searchable([LOST, lost, counts, SLOWER, replace(RED, gate="compare other")]) == "step_s"
    assert searchable([lost, counts]) == ""


@pytest.mark.parametrize("screened", [UNCLEAR, RED], ids=["unclear", "red"])
def test_slower_code_is_red_whatever_the_screen_was_sure_of(screened: Verdict) -> None:
    _, found = settle(
        [LOST, screened], {"step_s": SLOWER}, cost="43 s", today={}, environment="warn", changes=[]
    )
    assert (found.gate, found.outcome, found.shown) == ("compare step_s", Outcome.FAIL, "SLOWER")
    assert found.figure == "1.100x"
    assert found.reason == f"suspected at {screened.figure}; measured again, 43 s: 8 restarts"


def test_an_unclear_figure_whose_code_is_the_same_is_green() -> None:
    (found,) = settle(
        [UNCLEAR], {"step_s": SAME}, cost="9 s", today={}, environment="fail", changes=[]
    )
    assert (found.outcome, found.shown) == (Outcome.PASS, "SAME")


@pytest.mark.parametrize(
    ("environment", "outcome"), [("fail", Outcome.FAIL), ("warn", Outcome.NOT_GATED)]
)
def test_what_the_code_does_not_explain_is_the_environment_s(
    environment: str, outcome: Outcome
) -> None:
    code, moved = settle(
        [RED],
        {"step_s": SAME},
        cost="43 s",
        today={"step_s": replace(RED, figure="1.18x")},
        environment=environment,  # type: ignore[arg-type]  # one of its literals
        changes=["software: torch 2.14.1 -> 2.15.0"],
    )
    assert code.outcome is Outcome.PASS
    assert (moved.gate, moved.outcome, moved.shown) == (
        "environment step_s",
        outcome,
        "ENVIRONMENT",
    )
    assert moved.figure == "1.18x"  # of fresh processes, and not of the one
    assert "torch 2.14.1 -> 2.15.0" in moved.explanation


def test_one_slow_process_is_not_the_environment() -> None:
    """Fresh processes of the promoted code are as fast as when it was promoted."""
    (found,) = settle(
        [RED], {"step_s": SAME}, cost="9 s", today={"step_s": GREEN}, environment="fail", changes=[]
    )
    assert found.outcome is Outcome.PASS


def test_pairs_that_cannot_tell_leave_it_inconclusive() -> None:
    unclear = replace(SAME, outcome=Outcome.INCONCLUSIVE, word="")
    (found,) = settle(
        [RED], {"step_s": unclear}, cost="9 s", today={}, environment="fail", changes=[]
    )
    assert found.outcome is Outcome.INCONCLUSIVE
    assert found.reason == "suspected at 1.20x; measured again, 9 s: 8 restarts"


def test_what_disturbed_the_screen_is_told_where_the_pairs_cannot_tell_either() -> None:
    disturbed = replace(UNCLEAR, reason="contaminated: other processes used 50% of the cores")
    unclear = replace(SAME, outcome=Outcome.INCONCLUSIVE, word="", reason="too noisy")
    (found,) = settle(
        [disturbed], {"step_s": unclear}, cost="9 s", today={}, environment="fail", changes=[]
    )
    assert found.reason == (
        "suspected at 1.06x (contaminated: other processes used 50% of the cores);"
        " measured again, 9 s: too noisy"
    )


def test_in_the_old_environment_it_is_not_told_that_the_code_alone_is_the_reason() -> None:
    (found,) = settle(
        [RED],
        {"step_s": SLOWER},
        cost="43 s",
        today={},
        environment="warn",
        changes=[],
        beside=["torch 2.14.1 -> 2.15.0"],
    )
    assert found.outcome is Outcome.FAIL
    assert found.reason.endswith(
        "8 restarts; the code and its environment together (torch 2.14.1 -> 2.15.0)"
    )


def test_what_the_pairs_cleared_is_not_named_as_the_reason() -> None:
    _, found = settle(
        [RED],
        {"step_s": SAME},
        cost="43 s",
        today={},
        environment="warn",
        changes=["software: torch 2.14.1 -> 2.15.0", "software: driver 1 -> 2"],
        beside=["torch 2.14.1 -> 2.15.0"],
    )
    assert found.word == ENVIRONMENT
    assert found.reason.endswith("what else differs: software: driver 1 -> 2")


def test_a_suspicion_that_could_not_be_looked_into_stands_with_the_reason() -> None:
    green, red, unclear = unconfirmed(
        [GREEN, replace(RED, gate="compare a"), UNCLEAR], ["a", "step_s"], "not confirmed: why"
    )
    assert green.outcome is Outcome.PASS
    assert (red.outcome, red.reason) == (Outcome.FAIL, "not confirmed: why")
    assert (unclear.outcome, unclear.reason) == (
        Outcome.INCONCLUSIVE,
        "too noisy to say; not confirmed: why",
    )
