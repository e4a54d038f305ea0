"""Advice: what follows from known scatter, and that the widths it rests on hold."""

import math
import random
from dataclasses import replace
from pathlib import Path

import advice_study
import msgspec
import pytest
from advice_page import page
from reach import COUNTS, draw_intervals, judge

from perfsuite.judging.advice import (
    REACH,
    Known,
    advise,
    deviation,
    night_scatter,
    pair_scatter,
    suspected,
    wish,
    worse_by_twice,
)
from perfsuite.judging.spreads import Spread

DOCS = Path(__file__).parents[2] / "docs" / "studies"
SURE = math.inf
KNOWN = Known(
    name="step_time step_s",
    within=0.005,
    between=Spread(0.01, SURE),
    nights=0.015,
    screened=Spread(0.01, SURE),
    runs=3,
    pairs=Spread(0.014, SURE),
    pair_s=2.0,
)


def held(known: Known = KNOWN, budget_s: float = 60.0) -> float:
    return advise(known, budget_s=budget_s, confidence=0.99).held


def test_more_time_holds_a_smaller_margin() -> None:
    margins = [held(budget_s=budget_s) for budget_s in (10, 60, 120, 400)]
    assert margins == sorted(margins, reverse=True)
    advice = advise(KNOWN, budget_s=60, confidence=0.99)
    assert advice.pairs == 24
    assert advice.scatter == 0.014
    width = math.log1p(advice.held)
    assert REACH[24] * 0.014 <= width < REACH[24] * 0.014 + 0.006
    # The first look is taken, however little time there is.
    assert advise(KNOWN, budget_s=1, confidence=0.99).pairs == min(REACH)


def test_what_is_known_badly_takes_a_larger_margin() -> None:
    assert held(replace(KNOWN, pairs=Spread(0.014, 8))) > held()
    assert held(replace(KNOWN, pairs=None, between=Spread(0.01, 6))) > held()
    assert held(replace(KNOWN, pairs=None)) == held(replace(KNOWN, pairs=Spread(0.01414, SURE)))
    # However many figures spread alike on average, each may differ.
    many = [held(replace(KNOWN, pairs=None, between=Spread(0.01, n))) for n in (10, 1000)]
    assert many[0] == many[1]


def test_few_unchanged_nights_are_to_be_confirmed() -> None:
    advice = advise(KNOWN, budget_s=400, confidence=0.99)
    assert advice.margin > advice.held
    assert 0.05 < advice.suspected <= 0.1
    # By a spread that is assumed all are.
    few = advise(replace(KNOWN, runs=2), budget_s=400, confidence=0.99)
    assert few.margin == few.held


def test_the_share_that_is_foretold_is_that_of_the_screen() -> None:
    assert suspected(KNOWN, margin=0.5, confidence=0.99) < 1e-9
    # Exactly at the middle: where an unchanged night's interval just reaches the margin.
    middle = math.expm1(2.3263 * 0.01 * math.sqrt(4 / 3))
    assert suspected(KNOWN, margin=middle, confidence=0.99) == pytest.approx(0.5, abs=1e-3)
    assert suspected(KNOWN, margin=middle, confidence=0.99, runs=20) < 0.5
    counted = replace(KNOWN, screened=Spread(0.0, SURE))
    assert suspected(counted, margin=0.01, confidence=0.99) == 0


def test_a_wish_has_its_price_or_none_that_is_enough() -> None:
    takes = wish(KNOWN, margin=0.05, confidence=0.99)
    assert takes.pairs is not None
    assert takes.seconds == takes.pairs * 2.0
    assert takes.runs == 2
    smaller = wish(KNOWN, margin=0.02, confidence=0.99)
    assert smaller.pairs is not None
    assert smaller.pairs > takes.pairs
    assert smaller.runs is None
    nothing = wish(KNOWN, margin=0.001, confidence=0.99)
    assert (nothing.pairs, nothing.seconds, nothing.runs) == (None, None, None)
    assert wish(replace(KNOWN, pair_s=None), margin=0.05, confidence=0.99).seconds is None


def test_twice_a_margin_is_twice_its_logarithm() -> None:
    assert worse_by_twice(0.05) == pytest.approx(0.1025)


def test_scatter_is_found_in_spite_of_strays_and_of_what_sessions_do() -> None:
    draw = random.Random(3)
    noise = [draw.gauss(0, 0.02) for _ in range(400)]
    assert deviation([*noise, 5.0, -5.0]) == pytest.approx(0.02, rel=0.15)
    sessions = [[math.exp(n + shift) for n in noise[:200]] for shift in (0.0, 0.4)]
    found = pair_scatter(sessions)
    assert found is not None
    assert found.deviation == pytest.approx(0.02, rel=0.15)
    assert found.degrees == pytest.approx(2 * 0.37 * 199)
    assert pair_scatter([[1.0, 1.1]]) is None
    assert pair_scatter([]) is None


def test_lasting_changes_are_no_scatter_between_nights() -> None:
    draw = random.Random(4)
    nights = [math.exp(draw.gauss(0.3 * (n >= 30), 0.02)) for n in range(60)]
    apart, together = night_scatter(nights, [30]), night_scatter(nights, [])
    assert apart is not None
    assert together is not None
    assert apart.deviation == pytest.approx(0.02, rel=0.25)
    assert together.deviation > 0.1
    assert night_scatter(nights[:5], []) is None


# The study, and a short one of its kind.


def published() -> advice_study.AdviceStudy:
    return msgspec.json.decode((DOCS / "advice.json").read_bytes(), type=advice_study.AdviceStudy)


def test_the_published_page_is_what_its_json_says() -> None:
    assert (DOCS / "advice.md").read_text().rstrip() == page(published()).rstrip()


def test_the_widths_in_use_are_those_of_the_study() -> None:
    assert published().reach == REACH
    assert tuple(REACH) == COUNTS


def test_the_advised_margin_holds() -> None:
    told = published().cases
    nights = sum(each.nights for each in told)
    assert sum(each.red for each in told) <= 0.001 * nights
    assert sum(each.found for each in told) >= 0.99 * nights


@pytest.mark.slow
def test_a_short_study_holds_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Red where looks or intervals changed, and the study was not run again."""
    monkeypatch.setattr("reach.PART", 100)
    intervals = draw_intervals(400, kind="normal", seed=7)
    for pairs, width in REACH.items():
        same, _ = judge(intervals, width, pairs, 0.0)
        _, worse = judge(intervals, width, pairs, 2 * width)
        assert (~same).sum() <= 3  # 0.05 % are asked for: 4 in 400 come once in 16,000 times
        assert (~worse).sum() <= 4
        # And half of it would not do, though by 12 pairs it seldom shows.
        smaller, _ = judge(intervals, 0.5 * width, pairs, 0.0)
        assert (~smaller).sum() >= 3
    found = advice_study.case(0.01, "calm", advice_study.KNOWN[1], 60.0, intervals, histories=5)
    assert found.red <= 3
    assert found.found >= 0.98 * found.nights
    assert abs(found.suspected - found.told) < 0.1
