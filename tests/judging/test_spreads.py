"""How figures spread: what few runs tell, what many figures tell together, and what they do not."""

import math
import random
import statistics

import pytest

from perfsuite.judging.estimates import SampleError, predicted_ratio
from perfsuite.judging.spreads import Spread, observed_spread, or_assumed, pooled_spreads


def runs_of(noise: random.Random, deviation: float, n: int = 3) -> list[float]:
    return [math.exp(noise.gauss(0, deviation)) for _ in range(n)]


def test_the_spread_of_runs_alone_is_the_standard_deviation_of_their_logarithms() -> None:
    found = observed_spread([1.0, 1.1, 1.3])
    assert found.degrees == 2
    assert found.deviation == pytest.approx(statistics.stdev(map(math.log, (1.0, 1.1, 1.3))))


def test_one_run_tells_nothing_and_the_assumed_spread_is_taken() -> None:
    assert observed_spread([2.0]) == Spread(0.0, 0.0)
    assert or_assumed(observed_spread([2.0]), 0.02) == Spread(0.02, math.inf)


def test_two_runs_take_the_larger_of_their_spread_and_the_assumed_one() -> None:
    assert or_assumed(observed_spread([1.0, 1.0]), 0.02) == Spread(0.02, math.inf)
    assert or_assumed(observed_spread([1.0, 1.5]), 0.02).deviation > 0.2
    assert or_assumed(observed_spread([1.0, 1.0, 1.0]), 0.5) == Spread(0.0, 2.0)


def test_nights_teach_what_differs_between_days() -> None:
    noise = random.Random(1)
    promoted = [1.05 * each for each in runs_of(noise, 0.001)]  # all of one good day
    nights = runs_of(noise, 0.02, 30)
    found = observed_spread(promoted, nights)
    assert found.degrees == pytest.approx(2 + 0.30 * 29)
    assert 0.012 < found.deviation < 0.03
    assert observed_spread(promoted, nights[:1]) == observed_spread(promoted)


@pytest.mark.parametrize("level", [0.8, 1.04])
@pytest.mark.parametrize("since", [0, 15], ids=["always", "half-way"])
def test_what_changed_for_good_is_no_spread(level: float, since: int) -> None:
    """An improvement that nobody promoted, or what another environment costs."""
    noise = random.Random(8)
    nights = runs_of(noise, 0.003, 30)
    moved = [night * (level if n >= since else 1.0) for n, night in enumerate(nights)]
    promoted = runs_of(noise, 0.003)
    same = observed_spread(promoted, nights).deviation
    assert observed_spread(promoted, moved).deviation < 1.5 * same


def test_nights_count_for_what_their_median_step_tells() -> None:
    """So exact is a standard deviation of as many degrees of freedom: log s has 1 / 2n."""
    noise = random.Random(9)
    found = [observed_spread([1.0], runs_of(noise, 0.01, 101)) for _ in range(2000)]
    variance = statistics.variance(math.log(each.deviation) for each in found)
    assert 1 / (2 * variance) == pytest.approx(found[0].degrees, rel=0.1)


def test_a_night_that_is_far_off_does_not_widen_the_spread() -> None:
    noise = random.Random(2)
    nights = runs_of(noise, 0.01, 30)
    calm = observed_spread([1.0, 1.0, 1.0], nights).deviation
    wild = observed_spread([1.0, 1.0, 1.0], [*nights[:-1], 5.0]).deviation
    assert wild < 1.2 * calm


def test_figures_that_agree_share_what_they_know() -> None:
    noise = random.Random(3)
    own = {n: observed_spread(runs_of(noise, 0.01)) for n in range(40)}
    pooled = pooled_spreads(own)
    assert all(each.degrees >= 18 for each in pooled.values())
    errors = [abs(math.log(each.deviation / 0.01)) for each in pooled.values()]
    assert max(errors) < 0.35
    assert max(abs(math.log(each.deviation / 0.01)) for each in own.values()) > 1.0


def test_figures_that_do_not_agree_keep_most_of_their_own() -> None:
    noise = random.Random(4)
    deviations = [0.001 * 100 ** (n / 19) for n in range(20)]  # from 0.1 % to 10 %
    own = {n: observed_spread(runs_of(noise, s, 30)) for n, s in enumerate(deviations)}
    pooled = pooled_spreads(own)
    for n, deviation in enumerate(deviations):
        assert pooled[n].degrees < 40
        assert 0.5 < pooled[n].deviation / deviation < 2


def test_a_figure_that_does_not_scatter_stays_as_it_is() -> None:
    noise = random.Random(5)
    own = {n: observed_spread(runs_of(noise, 0.01)) for n in range(5)}
    own[9] = observed_spread([7.0, 7.0, 7.0])
    assert pooled_spreads(own)[9] == Spread(0.0, 2.0)


def test_two_figures_are_too_few_to_say_that_they_agree() -> None:
    own = {"a": Spread(0.01, 2), "b": Spread(0.02, 2)}
    assert pooled_spreads(own) == own
    assert pooled_spreads({}) == {}


@pytest.mark.parametrize("deviations", [(0.01, 0.01, 0.01), (0.002, 0.01, 0.05)])
def test_the_interval_by_a_pooled_spread_covers_a_further_run(
    deviations: tuple[float, ...],
) -> None:
    """Eight figures of three runs each; their spreads are alike, or they are not."""
    noise = random.Random(6)
    misses = trials = 0
    for _ in range(400):
        figures = {n: runs_of(noise, deviations[n % 3]) for n in range(8)}
        pooled = pooled_spreads({n: observed_spread(runs) for n, runs in figures.items()})
        for n, runs in figures.items():
            (now,) = runs_of(noise, deviations[n % 3], 1)
            spread, degrees = pooled[n].deviation, pooled[n].degrees
            found = predicted_ratio(now, runs, spread=spread, degrees=degrees, confidence=0.98)
            misses += not found.low <= 1 <= found.high
            trials += 1
    assert misses / trials <= 0.035


def test_bad_values_are_named() -> None:
    with pytest.raises(SampleError, match=r"runs\[1\] = nan"):
        observed_spread([1.0, math.nan])
    with pytest.raises(SampleError, match=r"nights\[0\] = -1"):
        observed_spread([1.0], [-1.0])
