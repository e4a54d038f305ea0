"""Estimates: right on known data, true coverage on noise, and strict on bad input."""

import math
import random
import statistics
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfsuite.judging.estimates import (
    HIDDEN,
    Estimate,
    SampleError,
    hodges_lehmann,
    is_steady,
    mean_ratio,
    median_s,
    paired_ratio,
    predicted_ratio,
    signed_rank_intervals,
)
from perfsuite.judging.gates import Outcome, at_most
from perfsuite.judging.spreads import observed_spread, or_assumed

MIN_PAIRS = 8  # whose signs agree by chance once in 128 times: enough for 99 %

positive = st.floats(1e-6, 1e6)
pairs = st.lists(st.tuples(positive, positive), min_size=MIN_PAIRS, max_size=30)

Ratio = Callable[[Sequence[float], Sequence[float]], Estimate]


def mean_ratio_99(a: Sequence[float], b: Sequence[float]) -> Estimate:
    return mean_ratio(a, b, confidence=0.99)


RATIOS = pytest.mark.parametrize("ratio", [paired_ratio, mean_ratio_99], ids=["paired", "mean"])


@RATIOS
@given(values=pairs)
def test_the_interval_holds_the_estimate_and_is_inverted_with_the_ratio(
    ratio: Ratio, values: list[tuple[float, float]]
) -> None:
    top, bottom = zip(*values, strict=True)
    there, back = ratio(top, bottom), ratio(bottom, top)
    assert there.low <= there.value * (1 + 1e-9)
    assert there.value <= there.high * (1 + 1e-9)
    assert math.isclose(there.value, 1 / back.value, rel_tol=1e-6)
    assert math.isclose(there.low, 1 / back.high, rel_tol=1e-6)


@RATIOS
@given(values=st.lists(positive, min_size=MIN_PAIRS, max_size=20), factor=st.floats(0.1, 10))
def test_a_constant_ratio_is_found_exactly(
    ratio: Ratio, values: list[float], factor: float
) -> None:
    found = ratio([value * factor for value in values], values)
    assert math.isclose(found.low, factor, rel_tol=1e-6)
    assert math.isclose(found.high, factor, rel_tol=1e-6)


EXTREMES = [math.nan, math.inf, -math.inf, -1.0, -0.0, 0.0, 5e-324, 1e-300, 1.0, 1e300, 1.7e308]
any_numbers = st.lists(st.sampled_from(EXTREMES) | st.floats(), max_size=14)


@RATIOS
@given(top=any_numbers, bottom=any_numbers)
def test_any_numbers_give_a_named_error_or_an_ordered_interval(
    ratio: Ratio, top: list[float], bottom: list[float]
) -> None:
    usable = len(top) == len(bottom) and all(0 < x < math.inf for x in (*top, *bottom))
    try:
        found = ratio(top, bottom)
    except SampleError:
        least = MIN_PAIRS if ratio is paired_ratio else 2
        assert not (usable and len(top) >= least)
        return
    assert usable
    assert found.low <= found.high
    verdict = at_most("g", found, 1.0)
    if not math.isfinite(found.high):
        assert verdict.outcome is Outcome.FAIL


@given(now=st.sampled_from(EXTREMES) | st.floats(), runs=any_numbers)
def test_a_prediction_from_any_runs_is_a_named_error_or_an_ordered_interval(
    now: float, runs: list[float]
) -> None:
    usable = bool(runs) and all(0 < x < math.inf for x in (now, *runs))
    try:
        found = predicted_ratio(now, runs, spread=0.02)
    except SampleError:
        assert not usable
    else:
        assert usable
        assert found.low <= found.high


@given(value=positive, n=st.integers(0, 30))
def test_constant_data_has_an_interval_of_no_width_or_too_few_values(value: float, n: int) -> None:
    if n < MIN_PAIRS:
        with pytest.raises(SampleError, match=f"{n} values, need at least {MIN_PAIRS}"):
            paired_ratio([value] * n, [value] * n)
    else:
        found = paired_ratio([value] * n, [value] * n)
        assert (found.low, found.value, found.high, found.scatter) == (1.0, 1.0, 1.0, 0.0)


def test_a_stall_in_one_pair_does_not_move_the_paired_ratio() -> None:
    noise = random.Random(0)
    bottom = [1 + noise.gauss(0, 0.01) for _ in range(20)]
    top = [2 * b * (1 + noise.gauss(0, 0.01)) for b in bottom]
    calm = paired_ratio(top, bottom)
    stalled = paired_ratio([top[0] * 50, *top[1:]], bottom)
    assert abs(math.log(stalled.value / calm.value)) < 0.005


@pytest.mark.parametrize(
    ("draw", "n"),
    [
        (lambda r: r.gauss(0, 0.02), 10),
        (lambda r: r.gauss(0, 0.02), 30),
        # Stalls: one pair in ten is far off, either way.
        (lambda r: r.gauss(0, 0.02) if r.random() < 0.9 else r.gauss(0, 0.5), 20),
    ],
    ids=["normal-10", "normal-30", "stalls-20"],
)
def test_the_paired_interval_covers_the_true_ratio_as_often_as_its_confidence(
    draw: Callable[[random.Random], float], n: int
) -> None:
    noise = random.Random(1)
    misses, trials = 0, 2000
    for _ in range(trials):
        found = paired_ratio([1.3 * math.exp(draw(noise)) for _ in range(n)], [1.0] * n)
        misses += not found.low <= 1.3 <= found.high
    # 1 % is promised; 1.6 % is 2.7 standard errors above.
    assert misses / trials <= 0.016


# Misses in per cent of a 99 % interval, when each observation resembles the one before.
@pytest.mark.parametrize(("phi", "n", "most"), [(0.3, 18, 3.0), (0.3, 60, 2.8), (0.4, 12, 4.2)])
def test_autocorrelation_costs_the_paired_interval_little_coverage(
    phi: float, n: int, most: float
) -> None:
    noise = random.Random(5)
    misses, trials = 0, 1500
    for _ in range(trials):
        state, ratios = 0.0, []
        for _ in range(n):
            state = phi * state + noise.gauss(0, 0.02)
            ratios.append(math.exp(state))
        found = paired_ratio(ratios, [1.0] * n)
        misses += not found.low <= 1 <= found.high
    # Taken for independent they miss five times as often as is promised.
    assert 100 * misses / trials <= most


@pytest.mark.parametrize(
    ("n", "confidence", "outside"),
    # Critical values of the signed-rank test, two-sided, from published tables.
    [(8, 0.99, 0), (9, 0.99, 1), (10, 0.99, 3), (12, 0.99, 7), (20, 0.99, 37), (20, 0.95, 52)],
)
def test_the_interval_has_the_exact_quantile(n: int, confidence: float, outside: int) -> None:
    # Alternating, so that no more dependence widens it than any series may hide.
    logs = [(-1) ** i * (i + 1) / 100 for i in range(n)]
    found = paired_ratio([math.exp(x) for x in logs], [1.0] * n, confidence=confidence)
    walsh = sorted((a + b) / 2 for i, a in enumerate(logs) for b in logs[i:])
    centre, widening = math.log(found.value), math.sqrt((1 + HIDDEN / n) / (1 - HIDDEN / n))
    assert centre == pytest.approx(statistics.median(walsh))
    assert math.log(found.low) == pytest.approx(centre + widening * (walsh[outside] - centre))
    assert math.log(found.high) == pytest.approx(centre + widening * (walsh[-1 - outside] - centre))


def test_many_series_have_the_intervals_that_each_has_alone() -> None:
    series = np.random.default_rng(0).normal(0, 0.02, (20, 13))
    centres, lows, highs = signed_rank_intervals(series, confidence=0.99)
    for row, *found in zip(series, centres, lows, highs, strict=True):
        alone = paired_ratio(np.exp(row).tolist(), [1.0] * 13)
        assert np.exp(found) == pytest.approx([alone.value, alone.low, alone.high])


def test_the_estimate_without_interval_is_that_of_the_paired_ratio() -> None:
    top, bottom = [1.0, 2.0, 4.0, 3.0, 1.5, 1.0, 2.0, 2.5], [1.0] * 8
    assert hodges_lehmann(top, bottom) == paired_ratio(top, bottom).value
    assert hodges_lehmann([3.0], [1.5]) == pytest.approx(2.0)
    with pytest.raises(SampleError):
        hodges_lehmann([], [])


@pytest.mark.parametrize("runs", [1, 2, 3, 5])
def test_the_predicted_interval_covers_a_further_run_as_often_as_its_confidence(runs: int) -> None:
    noise = random.Random(2)
    misses, trials = 0, 4000
    for _ in range(trials):
        drawn = [math.exp(noise.gauss(0, 0.02)) for _ in range(runs + 1)]
        spread = or_assumed(observed_spread(drawn[1:]), 0.02)
        found = predicted_ratio(
            drawn[0], drawn[1:], spread=spread.deviation, degrees=spread.degrees
        )
        misses += not found.low <= 1 <= found.high
    assert misses / trials <= 0.015


def test_runs_that_agree_predict_one_that_agrees() -> None:
    exact = predicted_ratio(1.1, [1.0, 1.0, 1.0], spread=0.0, degrees=2)
    assert (exact.low, exact.high) == pytest.approx((1.1, 1.1))


@pytest.mark.parametrize(
    "bad", [math.nan, math.inf, -1.0, 0.0], ids=["nan", "infinite", "negative", "zero"]
)
@pytest.mark.parametrize("side", [0, 1], ids=["numerator", "denominator"])
@RATIOS
def test_a_bad_value_is_named(ratio: Ratio, side: int, bad: float) -> None:
    values = [[1.0] * MIN_PAIRS, [1.0] * MIN_PAIRS]
    values[side][3] = bad
    with pytest.raises(SampleError, match=rf"ors\[3\] = {bad!r}: must be finite and positive"):
        ratio(*values)


@RATIOS
@pytest.mark.parametrize("n", [0, 1], ids=["empty", "single"])
def test_too_few_pairs_are_refused(ratio: Ratio, n: int) -> None:
    with pytest.raises(SampleError, match=f"{n} values, need at least"):
        ratio([1.0] * n, [1.0] * n)


@RATIOS
def test_unequal_lengths_are_no_pairs(ratio: Ratio) -> None:
    with pytest.raises(SampleError, match="9 numerators for 10 denominators: not pairs"):
        ratio([1.0] * 9, [1.0] * 10)


@pytest.mark.parametrize("confidence", [0.0, 1.0, math.nan])
def test_an_impossible_confidence_is_refused(confidence: float) -> None:
    with pytest.raises(SampleError, match="confidence"):
        paired_ratio([1.0] * 8, [1.0] * 8, confidence=confidence)


@pytest.mark.parametrize("runs", [[], [1.0, math.nan], [0.0]], ids=["none", "nan", "zero"])
def test_bad_runs_are_refused(runs: list[float]) -> None:
    with pytest.raises(SampleError):
        predicted_ratio(1.0, runs, spread=0.02)


@pytest.mark.parametrize("spread", [-0.1, math.nan])
def test_a_bad_spread_is_refused(spread: float) -> None:
    with pytest.raises(SampleError, match="spread"):
        predicted_ratio(1.0, [1.0], spread=spread)


def test_median_of_nothing_is_refused() -> None:
    with pytest.raises(SampleError, match="seconds: 0 values"):
        median_s([])


@pytest.mark.parametrize(
    ("seconds", "steady"),
    [
        ([], False),
        ([1.0] * 2, False),
        ([1.0] * 3, True),
        ([5.0, 3.0, 2.0, 1.0], False),
        ([5.0, 1.0, 1.0], False),
        ([5.0, 1.0, 1.0, 1.0], True),
        ([5.0, 1.0, 1.2, 0.96], True),
        ([5.0, 1.0, 0.9, 1.0], False),
        ([1.0, 1.0, 9.0, 1.0], False),
        ([1.0, 1.1, 1.2, 1.3], False),
    ],
    ids=[
        "empty",
        "too-few",
        "constant",
        "falling",
        "one-cold",
        "settled",
        "noisy",
        "still-falling",
        "a-stall",
        "rising",
    ],
)
def test_steady(seconds: list[float], steady: bool) -> None:
    assert is_steady(seconds, window=2, tolerance=0.05) is steady
