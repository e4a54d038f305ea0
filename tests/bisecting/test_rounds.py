"""Rounds are kept as they are measured, taken from the file first, and blamed on whom they fail."""

from contextlib import ExitStack, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from perfsuite.against.comparison import ComparisonError
from perfsuite.against.controllers import SideError
from perfsuite.against.messages import Done, Ready
from perfsuite.against.restart import Restart
from perfsuite.bisecting.rounds import BisectionError, Count, Round, RoundLog, Rounds
from perfsuite.judging.counts import Ledger


def test_what_was_measured_is_taken_once_in_its_order(tmp_path: Path) -> None:
    log = RoundLog(tmp_path / "kept" / "a.jsonl")
    rounds = [Round(key="a", version="v", over_good={"x": ratio}) for ratio in (1.0, 2.0)]
    count = Count(key="a", version="v", ledger=Ledger(counts={"c": 1}))
    for each in rounds:
        log.add(each)
    log.add(count)
    assert log.take(Round, "a", "v") is None  # it is for the next time
    with (tmp_path / "kept" / "a.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"type":"round","key":"a","ver')  # broken off
    log.add(Round(key="a", version="after"))
    again = RoundLog(tmp_path / "kept" / "a.jsonl")
    assert again.take(Round, "a", "other") is None
    assert again.take(Round, "a", "after") is not None
    assert [again.take(Round, "a", "v") for _ in range(3)] == [*rounds, None]
    assert again.take(Count, "a", "v") == count


def test_what_failed_is_tried_again_the_next_time(tmp_path: Path) -> None:
    log = RoundLog(tmp_path / "a.jsonl")
    log.add(Round(key="a", version="v", why="the disk is full"))
    log.add(Count(key="a", version="v", why="the disk is full"))
    again = RoundLog(tmp_path / "a.jsonl")
    assert again.take(Round, "a", "v") is None
    assert again.take(Count, "a", "v") is None


class FakeServer:
    """A side that was started; one that is broken says so when it is asked what it has."""

    def __init__(self, side: str, *, broken: bool = False) -> None:
        self.side = side
        self.started: list[str] = []
        self._broken = broken

    def collected(self) -> Any:
        if self._broken:
            raise SideError(self.side, "its server ended")
        return SimpleNamespace(items={})

    def start(self, key: str, *_: Any) -> Any:
        self.started.append(key)
        return nullcontext(FakeWorker(key))


class FakeWorker:
    """Runs a benchmark that times a block, or trains, or neither, and keeps a ledger."""

    def __init__(self, key: str) -> None:
        self._left = int(key == "timed")
        losses = {"reference": {"losses": [1.0, -1.0]}, "candidate": {"losses": [1.0, None]}}
        self._pairs = [losses] * (key == "trained")

    def go(self) -> Ready | Done:
        self._left -= 1
        raw = {"ledger": {"counts": {"forward: mm": 3}}, "pairs": self._pairs}
        return Ready(what="step") if self._left >= 0 else Done(record={"raw": raw}, loaded={})

    def block(self) -> None:
        pass


class KnownRow:
    """Versions 0 to 4, some of which cannot be started."""

    noun = "commit"
    steps = ("one", "two", "three", "four")

    def __init__(self, broken: tuple[int, ...] = ()) -> None:
        self.broken = broken
        self.running: list[int] = []

    def start(self, version: int, stack: ExitStack) -> Any:
        self.running.append(version)
        stack.callback(self.running.remove, version)
        return FakeServer(f"v{version}", broken=version in self.broken)


# What each version finds by itself.
FOUND = {f"v{version}": {"doublings": 3 if version < 4 else 2} for version in range(5)}


@pytest.fixture
def restarts(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, int]]:
    """Let restarts measure nothing; return those that ran: both sides, and their index."""
    ran: list[tuple[str, str, int]] = []

    def run(pair: Any, key: str, index: int, show: Any, *, config: Any) -> Restart:
        if "refused" in key and len(ran) >= int(key[-1]):
            raise ComparisonError("the code after times nothing")
        if "v0 fails" in key:
            raise SideError("v0", "killed")
        ran.append((pair.before.side, pair.after.side, index))
        before, after = (
            {
                "metrics": {"x": {"value": value}},
                "config": FOUND[each.side] if config is None else config,
            }
            for value, each in ((1.0, pair.before), (2.0, pair.after))
        )
        return Restart(started="AB", duets={}, before=before, after=after)

    monkeypatch.setattr("perfsuite.against.restart.run_restart", run)
    return ran


def rounds_of(row: KnownRow, stack: ExitStack, log: Path) -> Rounds:
    fake: Any = row
    return Rounds(fake, lambda _: RoundLog(log), stack, lambda *_: None)


def test_a_version_is_measured_beside_both_ends_and_one_runs_at_a_time(
    tmp_path: Path, restarts: list[tuple[str, str, int]]
) -> None:
    row, log = KnownRow(), tmp_path / "log"
    with ExitStack() as stack:
        rounds = rounds_of(row, stack, log)
        assert not rounds.round("k", 4).bad_over
        found = [rounds.round("k", version) for version in (2, 2, 3)]
        assert row.running == [0, 4, 3]
        rounds.end_between()
        assert row.running == [0, 4]
    assert row.running == []
    assert found[0].over_good["x"] == found[0].bad_over["x"] == 2.0
    assert restarts == [
        *(("v0", "v4", 0), ("v0", "v4", 0)),  # which found two batches, and then kept to one
        *(("v0", "v2", 0), ("v2", "v4", 0), ("v0", "v2", 1), ("v2", "v4", 1)),
        *(("v0", "v3", 0), ("v3", "v4", 0)),
    ]
    with ExitStack() as stack:  # what was measured is not measured again
        again = rounds_of(KnownRow(), stack, log)
        assert [again.round("k", version) for version in (2, 2, 3)] == found
        assert len(restarts) == 8
        again.round("k", 2)
        assert restarts[-1] == ("v2", "v4", 2)


def test_all_keep_to_what_the_good_end_found(
    tmp_path: Path, restarts: list[tuple[str, str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    with ExitStack() as stack:
        rounds = rounds_of(KnownRow(), stack, log)
        found = [rounds.round("k", 4), rounds.round("k", 2)]
    assert [each.config for each in found] == [{"doublings": 3}] * 2
    assert restarts == [("v0", "v4", 0), *[("v0", "v4", 0), ("v0", "v2", 0), ("v2", "v4", 0)]]
    monkeypatch.setitem(FOUND, "v0", {"doublings": 1})  # another day
    with ExitStack() as stack:
        again = rounds_of(KnownRow(), stack, log)
        assert again.round("k", 4) == found[0]
        assert again.round("k", 3).config == {"doublings": 3}


def test_what_is_exact_is_counted_once_and_tells_what_else_is_measured(tmp_path: Path) -> None:
    row, servers = KnownRow(), []
    start = row.start

    def remember(version: int, stack: ExitStack) -> Any:
        servers.append(start(version, stack))
        return servers[-1]

    row.start = remember  # type: ignore[method-assign]  # to see what it started
    with ExitStack() as stack:
        rounds = rounds_of(row, stack, tmp_path / "log")
        found = [rounds.count(key, 4) for key in ("timed", "counted", "counted", "trained")]
    assert [each.measures for each in found] == [True, False, False, True]
    assert all(each.ledger is not None for each in found)
    assert servers[1].started == ["timed", "counted", "trained"]
    assert found[3].kinds == {"reference mean_loss": "0", "candidate mean_loss": "not finite"}


def test_whose_fault_it_is(tmp_path: Path, restarts: list[tuple[str, str, int]]) -> None:
    with ExitStack() as stack:
        row = KnownRow(broken=(2,))
        rounds = rounds_of(row, stack, tmp_path / "log")
        assert rounds.round("k", 2).why == "v2: its server ended"
        assert row.running == [0, 4]
        assert rounds.count("k", 2).why == "v2: its server ended"
        assert rounds.round("refused 0", 3).why == "the code after times nothing"
        with pytest.raises(BisectionError, match="both ends cannot be compared: the code after"):
            rounds.round("refused 0", 4)
        with pytest.raises(BisectionError, match="the good end failed: v0: killed"):
            rounds.round("v0 fails", 3)
    with ExitStack() as stack, pytest.raises(BisectionError, match="the bad end cannot be started"):
        rounds_of(KnownRow(broken=(4,)), stack, tmp_path / "other")
