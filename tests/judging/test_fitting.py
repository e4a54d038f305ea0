"""Bisection: the largest that fits is found in few tries, whatever it is."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfsuite.judging.fitting import RESOLUTION, largest

MOST = 2**20


def counting(limit: int) -> tuple[Callable[[int], bool], list[int]]:
    """Return what fits up to a limit, and what it was asked."""
    asked: list[int] = []

    def fits(number: int) -> bool:
        asked.append(number)
        return number <= limit

    return fits, asked


@given(limit=st.integers(1, MOST), first=st.integers(1, 2**16))
def test_the_largest_is_found_to_within_the_resolution(limit: int, first: int) -> None:
    fits, asked = counting(limit)
    found = largest(fits, first, most=MOST)
    assert found <= limit <= found + max(1, found // RESOLUTION) - (limit != found)
    assert len(asked) == len(set(asked))  # a process each
    assert len(asked) <= 30
    assert all(1 <= each <= MOST for each in asked)


@given(limit=st.integers(1, RESOLUTION), first=st.integers(1, 200))
def test_a_small_one_is_found_exactly(limit: int, first: int) -> None:
    fits, _ = counting(limit)
    assert largest(fits, first, most=MOST) == limit


@pytest.mark.parametrize("first", [1, 2, 3, 100])
def test_where_nothing_fits_it_is_none(first: int) -> None:
    fits, asked = counting(0)
    assert largest(fits, first, most=MOST) == 0
    assert asked[-1] == 1


@pytest.mark.parametrize(("first", "most"), [(1, 1), (3, 10), (16, 8), (8, 1000)])
def test_no_more_is_tried_than_the_most(first: int, most: int) -> None:
    fits, asked = counting(10**9)
    assert largest(fits, first, most=most) == most
    assert max(asked) == most
