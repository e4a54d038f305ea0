"""Interleaving: turns in balanced order, throttled quads set aside, one observation a restart."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from fakes import FakeArm, FakeTime, block

from perfsuite.judging.blocks import Block
from perfsuite.judging.estimates import SampleError
from perfsuite.judging.gates import Outcome, at_most
from perfsuite.judging.interleaving import (
    Duet,
    Quad,
    duet,
    pooled_ratio,
    quad,
    starting_order,
    take_turns,
)
from perfsuite.judging.stopping import LOOKS

HELD = ("power brake",)


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


def at_once(_: Duet) -> bool:
    return True


def four(a_s: float = 1.0, b_s: float = 2.0, *, index: int = 0) -> Quad:
    return quad(lambda: block(a_s), lambda: block(b_s), index)


def throttled(each: Quad) -> Quad:
    return replace(each, blocks=(*each.blocks[:3], block(9.0, HELD)))


def test_arms_take_turns(time: FakeTime) -> None:
    first, second = FakeArm(time), FakeArm(time)
    timed = duet(first.turn(), second.turn(), clear=at_once, budget_s=1e9, now=time)
    assert timed.order == ("ABBABAAB" * LOOKS[0])[: 4 * LOOKS[0]]
    assert len(timed.blocks) == len(timed.order)


def test_a_steady_drift_of_the_machine_cancels(time: FakeTime) -> None:
    def drifting(cost_s: float) -> Callable[[int], float]:
        # The machine slows down by 1 % of a step with every step taken by either arm.
        return lambda _: cost_s * (1.0 + 0.01 * (first.steps + second.steps))

    first, second = FakeArm(time), FakeArm(time)
    first.step_s, second.step_s = drifting(1.0), drifting(1.0)
    timed = duet(first.turn(2), second.turn(2), clear=at_once, budget_s=1e9, now=time)
    assert timed.times_s("A") == pytest.approx(timed.times_s("B"))
    assert timed.quads[0].of("A")[0].step_s < timed.quads[-1].of("B")[-1].step_s


def test_progress_is_reported_after_every_quad(time: FakeTime) -> None:
    told: list[tuple[int, int]] = []
    first, second = FakeArm(time), FakeArm(time)
    duet(
        first.turn(),
        second.turn(),
        clear=at_once,
        budget_s=1e9,
        progress=lambda done, of: told.append((done, of)),
        now=time,
    )
    assert told == [(done, LOOKS[0]) for done in range(1, LOOKS[0] + 1)]


def test_as_many_blocks_as_turns_are_needed() -> None:
    with pytest.raises(ValueError, match="zip"):
        Quad(order="ABBA", blocks=()).of("A")


def test_a_throttled_quad_is_set_aside_but_stays_on_record() -> None:
    quads = [four(index=index) for index in range(14)]
    quads[3] = throttled(quads[3])
    timed = Duet(tuple(quads))
    assert len(timed.sifted.kept) == 13
    assert len(timed.blocks) == 4 * 14
    ratio = timed.ratio("B", over="A", confidence=0.99)
    assert ratio.value == pytest.approx(2.0)
    assert ratio.n == 13


@pytest.mark.parametrize(("held", "of"), [(10, 14), (7, 14)], ids=["most", "half"])
def test_where_most_quads_were_throttled_the_verdict_is_inconclusive(held: int, of: int) -> None:
    quads = [four(index=index) for index in range(of)]
    quads[:held] = map(throttled, quads[:held])
    ratio = Duet(tuple(quads)).ratio("B", over="A", confidence=0.99)
    verdict = at_most("g", ratio, 3.0)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert f"{held} of {of} groups were throttled and set aside" in verdict.reason


def test_too_few_quads_are_an_error_where_nothing_was_throttled() -> None:
    with pytest.raises(SampleError, match="3 values, need at least 9"):
        Duet(tuple(four() for _ in range(3))).ratio("B", over="A", confidence=0.99)


def test_the_point_estimate_needs_one_quad_only() -> None:
    assert Duet((four(),)).point("B", over="A") == pytest.approx(2.0)


def test_a_stall_in_each_quad_leaves_its_other_neighbours() -> None:
    stalled = [
        replace(four(index=i), blocks=(block(50.0), *four(index=i).blocks[1:])) for i in (0, 2)
    ]
    quads = (*stalled, four(index=1))
    assert Duet(quads).point("B", over="A") == pytest.approx(2.0)


def test_the_sides_start_and_go_first_in_all_four_ways() -> None:
    taken: list[str] = []

    def turn(letter: str) -> Block:
        taken.append(letter)
        return block()

    ways = set()
    for index in range(4):
        duet = take_turns(lambda: turn("A"), lambda: turn("B"), index=index, quads=lambda _: 2)
        assert len(duet.quads) == 2
        ways.add((starting_order(index), duet.order))
    assert ways == {(start, order) for start in ("AB", "BA") for order in ("ABBABAAB", "BAABABBA")}
    # A block each to settle, which does not count.
    assert [taken[10 * index] for index in range(4)] == ["A", "B", "A", "B"]
    assert len(taken) == 4 * (2 + 8)


def test_too_few_restarts_are_refused() -> None:
    with pytest.raises(SampleError, match="1 values, need at least 9"):
        pooled_ratio([1.1], confidence=0.99)


def test_restarts_are_pooled_one_observation_each() -> None:
    pooled = pooled_ratio([1.1] * 12, confidence=0.99)
    assert pooled.n == 12
    assert pooled.value == pytest.approx(1.1)
