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
    equal_on_ranks,
    equivalent,
    finite,
    missing,
    not_gated,
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


def test_a_verdict_from_few_promoted_runs_says_so() -> None:
    verdict = not_worse("g", between(1.0, 1.2), 0.05, better="lower", runs=2)
    assert "fewer than 3 runs" in verdict.reason
    assert "fewer" not in not_worse("g", between(1.0, 1.2), 0.05, better="lower", runs=3).reason


@pytest.mark.parametrize("gate", [at_least, at_most, equivalent])
def test_a_figure_without_a_threshold_is_not_gated(gate) -> None:  # type: ignore[no-untyped-def]  # three signatures
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
def test_an_unknown_figure_is_inconclusive_and_gives_the_reason(
    judge: Callable[[Estimate], Verdict],
) -> None:
    verdict = judge(Estimate.no_answer("all was throttled"))
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert (verdict.figure, verdict.reason) == ("unknown", "all was throttled")


@pytest.mark.parametrize(
    ("held", "outcome"), [(1, Outcome.PASS), (10, Outcome.PASS), (11, Outcome.INCONCLUSIVE)]
)
def test_where_more_than_half_was_throttled_the_verdict_is_inconclusive(
    held: int, outcome: Outcome
) -> None:
    sifted = sift(range(20), lambda index: index < held)
    verdict = throttling("throttling", sifted, ["power brake"])
    assert verdict.outcome is outcome
    assert f"{held} of 20 timings set aside" in str(verdict)
    assert "power brake" in verdict.reason


THREE = sift(range(20), lambda index: index < 3)
NOISY = "the threshold lies inside the interval of 10 values that scatter by 2.5%: too noisy to say"
FEW = "fewer than 3 runs: their spread is assumed; promote more"
NO_COUNT = "the optimizer counts no steps: use one that keeps state['step'], such as Adam"


@pytest.mark.parametrize(
    ("verdict", "line"),
    [
        (
            at_least("g", between(1.4, 1.6), 1.3),
            "PASS g: 1.500x [1.400, 1.600]; required: at least 1.3x",
        ),
        (
            at_least("g", between(1.2, 1.4), 1.3),
            f"INCONCLUSIVE g: 1.300x [1.200, 1.400]; required: at least 1.3x ({NOISY})",
        ),
        (
            at_most("g", between(0.1, 0.3), 0.01, unit=" of a step"),
            "FAIL g: 0.200 of a step [0.100, 0.300]; required: at most 0.01 of a step",
        ),
        (at_most("g", Estimate.exact(0.5), 1.0), "PASS g: 0.500x; required: at most 1x"),
        (
            at_most("g", Estimate.exact(NAN), 1.0),
            "FAIL g: nan; required: at most 1x (not a finite number)",
        ),
        (at_most("g", Estimate.exact(0.5), None), "NOT GATED g: 0.500x (no threshold is set)"),
        (
            not_gated("g", "0.01 s", "compared with a baseline only"),
            "NOT GATED g: 0.01 s (compared with a baseline only)",
        ),
        (
            equivalent("g", between(1.04, 1.1), 0.03),
            "FAIL g: 1.070x [1.040, 1.100]; required: within 3.0% of 1x",
        ),
        (
            not_worse("g", between(1.1, 1.3), 0.05, better="lower", runs=5),
            "FAIL g: 1.200x [1.100, 1.300]; required: at most 5.0% worse than the 5 promoted runs",
        ),
        (
            not_worse("g", between(1.1, 1.3), 0.05, better="lower", runs=1),
            "FAIL g: 1.200x [1.100, 1.300]; required: at most 5.0% worse than the promoted run"
            f" ({FEW})",
        ),
        (
            missing("g", "no loss", "train"),
            "FAIL g: no loss; required: a figure that can be judged (train)",
        ),
        (
            finite("g", ["a", "b", "c", "d", "e"]),
            "FAIL g: not finite: a, b, c and 2 more;"
            " required: finite losses, parameters and buffers",
        ),
        (
            finite("g", []),
            "PASS g: all are finite; required: finite losses, parameters and buffers",
        ),
        (
            equal_on_ranks("g", None, weights=48, ranks=2),
            "PASS g: 48 weights are equal on 2 ranks;"
            " required: weights that are equal on all ranks, bit for bit",
        ),
        (
            equal_on_ranks("g", "0.bias of rank 1 is not rank 0's", weights=48, ranks=2),
            "FAIL g: 0.bias of rank 1 is not rank 0's;"
            " required: weights that are equal on all ranks, bit for bit"
            " (average gradients over ranks before anything uses them, and change no weight by what"
            " one rank alone has)",
        ),
        (
            skipped_steps("g", 3, 200, 0.01),
            "FAIL g: 3 of 200 steps skipped; required: at most 1.0% skipped",
        ),
        (
            skipped_steps("g", None, 200, 0.01),
            "INCONCLUSIVE g: an unknown number of 200 steps skipped; required: at most 1.0% skipped"
            f" ({NO_COUNT})",
        ),
        (
            skipped_steps("g", -1, 200, 0.01),
            "FAIL g: 201 steps taken instead of 200; required: at most 1.0% skipped"
            " (the optimizer took more steps than it was asked to)",
        ),
        (
            scale_within("g", 1.0, 1024.0, 65536.0),
            "FAIL g: a scale of 1; required: a scale between 1024 and 65536",
        ),
        (
            throttling("g", THREE, ["heat", "power brake"]),
            "PASS g: 3 of 20 timings set aside; required: at most half set aside"
            " (the device was throttled: heat, power brake)",
        ),
        (
            Verdict(gate="g", outcome=Outcome.FAIL, figure="1.1x", threshold="1x", word="SLOWER"),
            "SLOWER g: 1.1x; required: 1x",
        ),
        # As runs of before were written, which had the reason in the threshold's place.
        (
            Verdict(
                gate="g", outcome=Outcome.NOT_GATED, figure="1x", threshold="no threshold is set"
            ),
            "NOT GATED g: 1x (no threshold is set)",
        ),
    ],
)
def test_a_verdict_says_in_one_line_what_was_found_and_what_is_required(
    verdict: Verdict, line: str
) -> None:
    assert str(verdict) == line


def test_nothing_is_required_of_a_figure_that_is_not_gated() -> None:
    verdict = not_gated("g", "1x")
    assert (verdict.threshold, verdict.required) == ("", "")
    assert verdict.explanation == verdict.reason == "no threshold is set"
