"""Arms of the studies: fresh processes that take turns, and say so when they cannot."""

import os
import signal
from functools import partial

import pytest
from stepped_arms import NOW_S, make_arm, make_clock
from worker_study import ArmProcess, ArmProcessError, restart

pytestmark = pytest.mark.slow

Process = partial(ArmProcess, steps=1, make_clock=make_clock)


def test_a_pair_takes_turns_and_the_slower_side_is_slower() -> None:
    slow = partial(make_arm, step_s=0.01)
    pairs = [
        restart(make_arm, slow, index=index, quads=2, steps=1, make_clock=make_clock)
        for index in range(3)
    ]
    assert [pair.order for pair in pairs] == ["ABBABAAB", "ABBABAAB", "BAABABBA"]
    assert [pair.point("B", over="A") for pair in pairs] == [pytest.approx(10)] * 3
    assert NOW_S == [0.0]  # all of it passed elsewhere


@pytest.mark.parametrize(
    ("fails_at", "message"),
    [(0, "ValueError: no arm for seed 3"), (1, "RuntimeError: out of memory")],
    ids=["building", "warming-up"],
)
def test_an_arm_that_cannot_be_made_ready_is_told(fails_at: int, message: str) -> None:
    with (
        Process(partial(make_arm, fails_at=fails_at), seed=3) as process,
        pytest.raises(ArmProcessError, match=message),
    ):
        process.ready()


def test_a_step_that_fails_later_is_told_where_it_was_asked_for() -> None:
    with Process(partial(make_arm, fails_at=30), seed=0) as process:
        process.ready()
        # It took some steps to warm up, and at most 12.
        blocks = (process.block() for _ in range(30))
        with pytest.raises(ArmProcessError, match="RuntimeError: out of memory"):
            list(blocks)


def test_a_process_that_is_killed_is_told() -> None:
    with Process(make_arm, seed=0) as process:
        process.ready()
        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(ArmProcessError, match="ended with -9"):
            process.block()


def test_a_process_that_hangs_is_told_and_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker_study._PATIENCE_S", 0.2)
    monkeypatch.setattr("worker_study._GRACE_S", 0.2)
    hung = partial(make_arm, hangs=True)
    with (
        Process(hung, seed=0) as process,
        pytest.raises(ArmProcessError, match="no answer"),
    ):
        process.ready()
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)


def test_ctrl_c_is_left_to_whoever_started_the_processes() -> None:
    with Process(make_arm, seed=0) as process:
        process.ready()
        os.kill(process.pid, signal.SIGINT)
        assert process.block().steps == 1


def test_every_arm_has_a_process_of_its_own_that_is_gone_afterwards() -> None:
    pids = set()
    for _ in range(2):
        with Process(make_arm, seed=0) as process:
            process.ready()
            pids.add(process.pid)
    assert len(pids | {os.getpid()}) == 3
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
