"""Verdicts: each gate has a fault that turns it red and a healthy twin that stays green."""

import math
from collections.abc import Callable

import pytest

from perfsuite.judging.estimates import Estimate
from perfsuite.judging.gates import (
    Outcome,
    Verdict,
    at_least,
    at_most,
    equivalent,
    finite,
    missing,
    not_worse,
    scale_within,
    skipped_steps,
    throttling,
)
from perfsuite.judging.throttling import sift

NAN = math.nan


def between(low: float, high: float, value: float | None = None) -> Estimate:
    middle = (low + high) / 2 if value is None else value
    return Estimate(value=middle, low=low, high=high, confidence=0.99, n=10, scatter=0.025)


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [
        (1.4, 1.6, Outcome.PASS),
        (1.3, 1.6, Outcome.PASS),
        (1.2, 1.4, Outcome.INCONCLUSIVE),
        (1.0, 1.2, Outcome.FAIL),
        (NAN, NAN, Outcome.FAIL),
        (1.4, math.inf, Outcome.FAIL),
    ],
)
def test_at_least(low: float, high: float, outcome: Outcome) -> None:
    assert at_least("g", between(low, high), 1.3).outcome is outcome


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [
        (0.4, 0.6, Outcome.PASS),
        (0.4, 0.75, Outcome.PASS),
        (0.7, 0.8, Outcome.INCONCLUSIVE),
        (0.8, 0.9, Outcome.FAIL),
        (NAN, NAN, Outcome.FAIL),
    ],
)
def test_at_most(low: float, high: float, outcome: Outcome) -> None:
    assert at_most("g", between(low, high), 0.75).outcome is outcome


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [
        (0.99, 1.01, Outcome.PASS),
        (0.99, 1.05, Outcome.INCONCLUSIVE),
        (0.90, 1.10, Outcome.INCONCLUSIVE),
        (1.04, 1.10, Outcome.FAIL),
        (0.60, 0.70, Outcome.FAIL),
        (NAN, NAN, Outcome.FAIL),
        (0.0, 1.0, Outcome.FAIL),
    ],
    ids=["same", "wide-above", "wide", "worse", "better", "nan", "zero"],
)
def test_equivalent_fails_on_either_side(low: float, high: float, outcome: Outcome) -> None:
    assert equivalent("g", between(low, high), 0.03).outcome is outcome


@pytest.mark.parametrize("better", ["lower", "higher"])
@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [
        (0.8, 0.9, Outcome.PASS),
        (0.98, 1.04, Outcome.PASS),
        (1.01, 1.08, Outcome.INCONCLUSIVE),
        (1.06, 1.20, Outcome.FAIL),
    ],
    ids=["improved", "within", "straddles", "worse"],
)
def test_not_worse(better: str, low: float, high: float, outcome: Outcome) -> None:
    ratio = between(low, high) if better == "lower" else between(1 / high, 1 / low)
    assert not_worse("g", ratio, 0.05, better=better, runs=5).outcome is outcome


def test_few_runs_are_said_to_be_few() -> None:
    verdict = not_worse("g", between(1.0, 1.2), 0.05, better="lower", runs=2)
    assert "fewer than 3 runs" in verdict.reason
    assert "fewer" not in not_worse("g", between(1.0, 1.2), 0.05, better="lower", runs=3).reason


@pytest.mark.parametrize("gate", [at_least, at_most, equivalent])
def test_without_a_threshold_nothing_is_gated(gate) -> None:  # type: ignore[no-untyped-def]  # three signatures
    verdict = gate("g", between(1, 2), None)
    assert verdict.outcome is Outcome.NOT_GATED
    assert "1.500" in verdict.figure


@pytest.mark.parametrize(
    ("skipped", "outcome"),
    [
        (0, Outcome.PASS),
        (4, Outcome.PASS),
        (5, Outcome.FAIL),
        (-1, Outcome.FAIL),
        (None, Outcome.INCONCLUSIVE),
    ],
)
def test_skipped_steps(skipped: int | None, outcome: Outcome) -> None:
    assert skipped_steps("g", skipped, 200, 0.02).outcome is outcome


@pytest.mark.parametrize(
    ("scale", "outcome"),
    [
        (65536.0, Outcome.PASS),
        (1.0, Outcome.FAIL),
        (2.0**40, Outcome.FAIL),
        (0.0, Outcome.FAIL),
        (NAN, Outcome.FAIL),
    ],
)
def test_scale_within(scale: float, outcome: Outcome) -> None:
    assert scale_within("g", scale, 2.0**10, 2.0**24).outcome is outcome


@pytest.mark.parametrize(
    "judge",
    [
        lambda unknown: at_least("g", unknown, 1.3),
        lambda unknown: at_most("g", unknown, 1.3),
        lambda unknown: equivalent("g", unknown, 0.03),
        lambda unknown: not_worse("g", unknown, 0.05, better="lower", runs=5),
        lambda unknown: not_worse("g", unknown, 0.05, better="higher", runs=5),
    ],
    ids=["at_least", "at_most", "equivalent", "not_worse", "not_worse-higher"],
)
def test_what_is_unknown_is_inconclusive_and_says_why(judge: Callable[[Estimate], Verdict]) -> None:
    verdict = judge(Estimate.no_answer("all was throttled"))
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert (verdict.figure, verdict.reason) == ("unknown", "all was throttled")


@pytest.mark.parametrize(
    ("held", "outcome"), [(1, Outcome.PASS), (10, Outcome.PASS), (11, Outcome.INCONCLUSIVE)]
)
def test_throttling_is_counted_and_too_much_of_it_is_not_green(held: int, outcome: Outcome) -> None:
    sifted = sift(range(20), lambda index: index < held)
    verdict = throttling("throttling", sifted, ["power brake"])
    assert verdict.outcome is outcome
    assert f"{held} of 20 set aside" in str(verdict)
    assert "power brake" in verdict.reason


def test_finite_names_the_first_offenders() -> None:
    assert finite("g", []).outcome is Outcome.PASS
    verdict = finite("g", ["a", "b", "c", "d", "e"])
    assert verdict.outcome is Outcome.FAIL
    assert verdict.figure == "not finite: a, b, c and 2 more"


def test_what_is_missing_fails() -> None:
    assert missing("g", "no figure", "run it").outcome is Outcome.FAIL


def test_a_verdict_reads_as_one_line() -> None:
    line = str(at_least("amp_speedup", between(1.2, 1.4), 1.3))
    assert line == (
        "INCONCLUSIVE amp_speedup: 1.300x [1.200, 1.400], at least 1.3x"
        " (the threshold lies inside the interval of 10 values that scatter by 2.5%:"
        " too noisy to say)"
    )
