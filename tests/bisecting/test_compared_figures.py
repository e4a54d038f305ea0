"""The figures by which two versions are compared: those with a ratio, in their order."""

from typing import Any

import pytest

from perfsuite.against.restart import Restart
from perfsuite.bisecting.compared_figures import figures_of, kind_of


def side(**metrics: Any) -> dict[str, Any]:
    return {
        "metrics": {name: {"value": value} for name, value in metrics.items()},
        "raw": {"pairs": [{"reference": {"losses": [2.0, 1.0]}, "candidate": {"losses": [None]}}]},
    }


def test_figures_have_the_order_in_which_they_were_noted() -> None:
    names = [f"figure {number}" for number in range(20)]
    sides = side(**dict.fromkeys(names, 1.0)), side(**dict.fromkeys(reversed(names), 1.0))
    restart = Restart(started="AB", duets={}, before=sides[0], after=sides[1])
    assert [*figures_of(restart)] == [*names, "reference mean_loss"]


@pytest.mark.parametrize("after", [None, 0.0, float("nan"), float("inf")])
def test_figures_are_those_that_both_have_and_that_have_a_ratio(after: float | None) -> None:
    restart = Restart(
        started="AB",
        duets={},
        before=side(bytes=100.0, odd=1.0, gone=1.0),
        after=side(bytes=150.0, odd=after),
    )
    assert figures_of(restart) == {"bytes": 1.5, "reference mean_loss": 1.0}


def test_a_loss_that_is_not_positive_has_no_ratio() -> None:
    assert [kind_of(loss) for loss in (2.0, -2.0, 0.0, float("inf"), float("nan"))] == [
        *("positive", "negative", "0", "not finite", "not finite"),
    ]
