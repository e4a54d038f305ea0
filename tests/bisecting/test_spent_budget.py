"""A budget ends a search wherever it is, with what is known by then."""

from collections.abc import Callable

import pytest
from test_searching import KEY, LEDGER, FakeRounds, path, search, told

from perfsuite.bisecting.rounds import BisectionError

SPENT = "the budget is spent; run it again to go on from here"


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> Callable[[FakeRounds], FakeRounds]:
    """Let time pass where rounds say so, and nowhere else."""

    def timed(rounds: FakeRounds) -> FakeRounds:
        monkeypatch.setattr("perfsuite.bisecting.searching.time.monotonic", lambda: rounds.now_s)
        return rounds

    return timed


def test_a_budget_ends_it_with_what_is_known(timed: Callable[[FakeRounds], FakeRounds]) -> None:
    rounds = timed(FakeRounds({"step_s": path(64, (40, 0.2))}, takes_s=1.0))
    finding = search(rounds, budget_s=9.5)  # a count, and both ends
    assert SPENT in finding.notes
    assert "one of 64 commits" in told(finding, rounds)
    assert set(rounds.read[KEY]) == {64}


def test_a_budget_ends_the_comparison_of_both_ends_too(
    timed: Callable[[FakeRounds], FakeRounds],
) -> None:
    for budget_s, taken in ((4.0, 4), (0.5, 1)):
        rounds = timed(FakeRounds({"step_s": path(64, (40, 0.2))}, takes_s=1.0))
        with pytest.raises(BisectionError, match=f"both ends are not compared yet: {SPENT}"):
            search(rounds, budget_s=budget_s)
        assert len(rounds.read[KEY]) == taken


def test_a_budget_ends_counting_with_ranges(timed: Callable[[FakeRounds], FakeRounds]) -> None:
    casts = [*range(301)]  # another count at each commit
    rounds = timed(FakeRounds({"step_s": path(300)}, casts=casts, takes_s=1.0))
    finding = search(rounds, key=LEDGER, budget_s=20.0)
    assert len(rounds.counted[LEDGER]) <= 22
    assert finding.counted[0][0] == 1
    assert finding.counted[-1][1] == 300
    assert all(
        last + 1 == first
        for (_, last, _), (first, _, _) in zip(finding.counted, finding.counted[1:], strict=False)
    )
    assert f"not all is counted: {SPENT}" in finding.notes


def test_counting_leaves_half_of_a_budget_to_what_is_measured(
    timed: Callable[[FakeRounds], FakeRounds],
) -> None:
    rounds = timed(FakeRounds({"step_s": path(64, (9, 0.2))}, casts=[*range(65)], takes_s=1.0))
    finding = search(rounds, budget_s=60.0)
    assert 25 < len(rounds.counted[LEDGER]) <= 31
    assert finding.answer is not None
