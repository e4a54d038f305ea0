"""What was timed under throttling is set aside, and the rest decides if it is enough."""

import pytest

from perfsuite.judging.throttling import sift


@pytest.mark.parametrize(
    ("held", "decides", "used"),
    [
        ([], True, [0, 1, 2, 3]),
        ([1], True, [0, 2, 3]),
        ([0, 3], True, [1, 2]),
        ([0, 1, 3], False, [0, 1, 2, 3]),
        ([0, 1, 2, 3], False, [0, 1, 2, 3]),
    ],
    ids=["none", "one", "half", "most", "all"],
)
def test_the_rest_decides_if_it_is_at_least_half(
    held: list[int], decides: bool, used: list[int]
) -> None:
    found = sift(range(4), lambda each: each in held)
    assert (found.set_aside, found.decides, list(found.used)) == (len(held), decides, used)
