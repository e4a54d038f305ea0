"""Restarts: pairs of processes that take turns, each pair one observation."""

import pytest
from fakes import block

from perfsuite.judging.blocks import Block
from perfsuite.judging.estimates import SampleError
from perfsuite.judging.interleaving import pooled_ratio, starting_order, take_turns


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


def test_too_few_restarts_are_no_answer() -> None:
    with pytest.raises(SampleError, match="1 values, need at least 11"):
        pooled_ratio([1.1], confidence=0.99)


def test_restarts_are_pooled_one_observation_each() -> None:
    pooled = pooled_ratio([1.1] * 12, confidence=0.99)
    assert pooled.n == 12
    assert pooled.value == pytest.approx(1.1)
