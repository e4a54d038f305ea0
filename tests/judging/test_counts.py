"""Changes of counts: told with their sizes and places, red whichever way they go."""

import pytest

from perfsuite.judging.counts import PEAK, Ledger, changes, judge, merged, told
from perfsuite.judging.gates import Outcome

CAST = "forward: cast float32 -> bfloat16"
OLD, NEW = "net.py:7: x = self.a(x)", "net.py:9: x = self.b(x)"


def ledger(sites: dict[str, int] | None = None, **counts: int) -> Ledger:
    given = {CAST: sites or {}}
    total = {CAST: sum(given[CAST].values())} if sites else {}
    return Ledger(about={"batch": "8"}, counts={**total, **counts}, sites=given)


def test_nothing_changed() -> None:
    verdict, lines = judge(ledger({OLD: 2}), ledger({OLD: 2}), as_in="as before")
    assert (verdict.outcome, lines) == (Outcome.PASS, [])
    assert str(verdict) == "PASS ledger: all 1 counts are the same; required: as before"


@pytest.mark.parametrize("now", [3, 1], ids=["more", "less"])
def test_a_change_is_red_both_ways(now: int) -> None:
    verdict, lines = judge(ledger({OLD: 2}), ledger({OLD: now}), as_in="as before")
    assert verdict.outcome is Outcome.FAIL
    assert verdict.shown == "CHANGED"
    assert len(lines) == 1


def test_a_change_is_told_with_its_size_place_and_likely_cause() -> None:
    (change,) = changes(ledger({OLD: 2}), ledger({OLD: 2, NEW: 14}))
    assert str(change) == (
        f"+14 {CAST} (2 -> 16): {NEW} (are weights cast anew, autocast's cache being off?)"
    )


def test_what_is_gone_is_told_where_it_was() -> None:
    (change,) = changes(ledger({OLD: 2, NEW: 1}), ledger({OLD: 2}))
    assert str(change) == f"-1 {CAST} (3 -> 2): was {NEW}"


def test_a_line_that_moved_is_no_new_place() -> None:
    moved = OLD.replace(":7:", ":70:")
    (change,) = changes(ledger({OLD: 2}), ledger({moved: 2, NEW: 1}))
    assert change.places == (NEW,)


def test_many_places_are_not_all_told() -> None:
    sites = {f"net.py:{n}: line {n}": 1 for n in range(9)}
    (change,) = changes(ledger(), ledger(sites))
    assert change.where.endswith("net.py:2: line 2; and 6 more")


def test_a_line_that_many_modules_run_is_told_once() -> None:
    sites = {f"layer{n} (Linear), net.py:7: x = f(x, y)": 1 for n in range(9)}
    (change,) = changes(ledger(), ledger(sites))
    modules = "layer0 (Linear), layer1 (Linear), layer2 (Linear) and 6 more"
    assert change.where == f": net.py:7: x = f(x, y) (in {modules})"


def test_a_line_without_a_module_may_have_commas() -> None:
    (change,) = changes(ledger(), ledger({"net.py:7: f(x, y)": 1}))
    assert change.where == ": net.py:7: f(x, y)"


def test_totals_come_after_what_they_follow_from() -> None:
    now = Ledger(counts={CAST: 1, "bytes allocated": 9, "FLOPs float32": 2})
    names = [change.name for change in changes(Ledger(), now)]
    assert names == [CAST, "FLOPs float32", "bytes allocated"]


def test_counts_of_another_batch_are_not_compared() -> None:
    other = Ledger(about={"batch": "16"}, counts={"host reads": 3})
    verdict, lines = judge(Ledger(about={"batch": "8"}), other, as_in="as before")
    assert verdict.outcome is Outcome.FAIL
    assert lines == ["batch is '16', and was '8'"]


def test_what_became_unsteady_is_red() -> None:
    now = Ledger(unsteady=["host reads"])
    verdict, lines = judge(Ledger(counts={"host reads": 3}), now, as_in="as before")
    assert verdict.outcome is Outcome.FAIL
    assert lines == ["host reads differs from one step to the next, and did not before"]


def test_what_was_unsteady_before_is_named_and_not_judged() -> None:
    now = Ledger(unsteady=["host reads"])
    verdict, lines = judge(now, now, as_in="as before")
    assert (verdict.outcome, lines) == (Outcome.PASS, [])
    assert "not judged, since they are unsteady: host reads" in str(verdict)


def test_what_differs_between_steps_is_unsteady() -> None:
    found = merged([ledger(a=1, b=2), ledger(a=1, b=3), ledger(a=1, b=2, c=1)])
    assert found.unsteady == ["b", "c"]
    assert found.counts == {"a": 1}


@pytest.mark.parametrize(("now", "told"), [(1009, 0), (991, 0), (1011, 1), (989, 1)])
def test_a_peak_may_move_a_little(now: int, told: int) -> None:
    assert len(changes(Ledger(counts={PEAK: 1000}), Ledger(counts={PEAK: now}))) == told


def test_an_operator_in_another_dtype_is_one_line() -> None:
    before = Ledger(counts={"forward: mm bfloat16": 2, "forward: cos float32": 1})
    after = Ledger(
        counts={"forward: mm float32": 2, "forward: cos float32": 2},
        sites={"forward: mm float32": {NEW: 2}},
    )
    assert told(changes(before, after)) == [
        "+1 forward: cos float32 (1 -> 2)",
        f"2 forward: mm float32, and no more bfloat16: {NEW}",
    ]


def test_what_is_no_more_unsteady_is_red_until_it_is_accepted() -> None:
    before = Ledger(unsteady=["host reads"])
    verdict, lines = judge(before, Ledger(counts={"host reads": 3}), as_in="as before")
    assert verdict.outcome is Outcome.FAIL
    assert lines == ["host reads differed from one step to the next, and does no more"]
