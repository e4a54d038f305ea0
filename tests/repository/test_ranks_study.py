"""The study of slow ranks: what counts as right, and what its page says."""

import pytest
from ranks_study import RanksStudy, RankTrial, page, planned


def trial(slow: int | None, outcome: str, figure: str) -> RankTrial:
    return RankTrial(slow=slow, outcome=outcome, figure=figure, rounds=9, took_s=4.0, load_1min=0.1)


@pytest.mark.parametrize(
    ("slow", "outcome", "figure", "right"),
    [
        (1, "FAIL", "rank 1 takes 1.150x [1.140, 1.160]", True),
        (1, "FAIL", "rank 0 takes 1.150x [1.140, 1.160]", False),
        (1, "FAIL", "rank 1 takes 1.150x; rank 0 takes 1.140x", False),
        (1, "INCONCLUSIVE", "rank 1 takes 1.150x [1.000, 1.260]", False),
        (1, "INCONCLUSIVE", "unknown", False),
        (None, "PASS", "rank 1 takes 1.000x [0.990, 1.010]", True),
        (None, "FAIL", "rank 1 takes 1.150x [1.140, 1.160]", False),
    ],
)
def test_right_is_the_slow_rank_alone_and_nobody_where_nothing_was_planted(
    slow: int | None, outcome: str, figure: str, *, right: bool
) -> None:
    assert trial(slow, outcome, figure).right is right


def test_both_ranks_and_healthy_pairs_take_turns() -> None:
    assert planned(3) == [0, None, 1, None, 0, None]


def test_the_page_counts_what_was_said() -> None:
    study = RanksStudy(
        hardware="a CPU",
        torch="2.15.0",
        margin=0.1,
        trials=[
            trial(0, "FAIL", "rank 0 takes 1.150x"),
            trial(1, "INCONCLUSIVE", "rank 1 takes 1.150x"),
            trial(None, "PASS", "rank 1 takes 1.010x"),
        ],
    )
    text = page(study)
    assert "| +15% on one rank | 2 | 1 | 1 | 1 | 0 | 4 |" in text
    assert "| nothing | 1 | 1 | 0 | 0 | 1 | 4 |" in text
