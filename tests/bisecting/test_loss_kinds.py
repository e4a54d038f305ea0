"""A loss that becomes another kind of number is searched for exactly, before what has a ratio."""

from collections.abc import Collection
from dataclasses import dataclass, field

import pytest
from msgspec.structs import replace
from test_searching import KEY, FakeRounds, FakeRow, path, search, told

from perfsuite.bisecting.rounds import BisectionError, Count

LOSS, OTHER = "candidate mean_loss", "reference mean_loss"
FINE, LOST, SKIPPED = "positive", "not finite", ""


@dataclass
class FakeTrainings(FakeRounds):
    """Versions whose losses are of some kind."""

    kinds: dict[str, list[str]] = field(default_factory=dict)

    def count(self, key: str, version: int) -> Count:
        kinds = {name: at[version] for name, at in self.kinds.items() if at[version]}
        return replace(super().count(key, version), kinds=kinds)


def training(kinds: list[str], **others: list[str]) -> FakeTrainings:
    """Return versions whose training ends so; how long it takes is compared, too."""
    times_s = path(len(kinds) - 1, (1, 0.2))
    return FakeTrainings({"epoch_s": times_s}, kinds={LOSS: kinds, **others})


def test_the_commit_is_named_from_which_on_a_loss_is_not_finite() -> None:
    rounds = training([FINE] * 40 + [LOST] * 25)
    finding = search(rounds)
    assert finding.figure == LOSS
    assert finding.kinds == [(40, 40, "positive -> not finite")]
    assert not finding.open
    text = told(finding, rounds)
    assert f"step[fp32] {LOSS}\n  positive -> not finite at commit 40\n    a merge of" in text
    assert "count" not in text
    assert not rounds.read
    assert len(rounds.counted[KEY]) <= 3 + 6


def test_a_loss_that_is_finite_again_has_a_commit_too() -> None:
    rounds = training([LOST] * 3 + [FINE] * 6)
    assert search(rounds, figure=LOSS).kinds == [(3, 3, "not finite -> positive")]


def test_a_version_that_does_not_train_leaves_a_range() -> None:
    rounds = training([FINE] * 3 + [SKIPPED] + [LOST] * 5)
    text = told(search(rounds), rounds)
    assert "positive -> not finite at one of 2 commits, 'commit 3' to 'commit 4'" in text


def test_of_two_losses_one_is_searched_and_the_other_told() -> None:
    rounds = training([FINE] * 4 + [LOST] * 5, **{OTHER: [FINE] * 6 + ["0"] * 3})
    finding = search(rounds)
    assert (finding.figure, finding.kinds[0][0]) == (LOSS, 4)
    assert finding.notes == [f"{OTHER} becomes another kind of number, too: --figure"]
    finding = search(rounds, figure=OTHER)
    assert finding.kinds == [(6, 6, "positive -> 0")]
    assert search(rounds, figure="epoch_s").figure == "epoch_s"


def test_a_loss_that_is_lost_at_both_ends_is_named() -> None:
    rounds = training([LOST] * 9)
    finding = search(rounds)
    assert finding.figure == "epoch_s"
    assert f"{LOSS} is not finite at both ends, which has no ratio" in finding.notes
    with pytest.raises(BisectionError, match=f"{LOSS} is not finite at both ends"):
        search(rounds, figure=LOSS)
    rounds.figures = {}
    with pytest.raises(BisectionError, match=f"nothing was measured on both ends; {LOSS} is not"):
        search(rounds)


class RowWithADetour(FakeRow):
    """A row whose odd steps change what only some versions between the ends import."""

    def may_change(self, step: int, imported: Collection[str]) -> bool:
        return step % 2 == 0 or "detour.py" in imported


class FakeDetour(FakeTrainings):
    """Versions of which the sixth imports one file more."""

    def count(self, key: str, version: int) -> Count:
        files = ["net.py", *["detour.py"] * (version == 6)]
        return replace(super().count(key, version), files=files)


def test_a_step_that_changes_what_is_imported_only_in_between_is_searched() -> None:
    rounds = FakeDetour({"epoch_s": path(8)}, kinds={LOSS: [FINE] * 5 + [LOST] * 4})
    rounds.row = RowWithADetour(rounds.row.steps)
    finding = search(rounds)
    assert finding.kinds == [(5, 5, "positive -> not finite")]
    assert [*finding.steps] == [*range(1, 9)]


def test_a_loss_that_no_commit_can_have_changed_is_no_answer() -> None:
    rounds = training([FINE] * 2 + [LOST])
    rounds.row.prose = (1, 2)
    with pytest.raises(BisectionError, match="goes positive -> not finite, but no commit between"):
        search(rounds)


def test_a_budget_ends_it_with_a_range() -> None:
    rounds = training([FINE] * 4 + [LOST] * 5)
    finding = search(rounds, budget_s=-1.0)
    assert finding.kinds == [(1, 8, "positive -> not finite")]
    assert finding.notes == ["the budget is spent; run it again to go on from here"]
