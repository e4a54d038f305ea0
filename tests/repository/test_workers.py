"""Workers of the studies: fresh processes that take turns, and say so when they cannot."""

import os
import signal
import statistics
from functools import partial
from itertools import repeat

import pytest
import torch
from fakes import NOTHING
from torch import Tensor
from worker_study import Worker, WorkerError, restart

from perfsuite.measuring.timing import Timeable


class Arm:
    """Spins for a while in every step; it crosses to another process by its arguments."""

    def __init__(self, seed: int, *, spins: int = 200, fails_at: int = -1) -> None:
        self.spins, self.fails_at, self.steps = spins, fails_at, 0
        if fails_at == 0:
            raise ValueError(f"no arm for seed {seed}")

    def take(self, steps: int) -> list[tuple[Tensor, Tensor]]:
        return list(repeat((NOTHING, NOTHING), steps))

    def step(self, images: Tensor, labels: Tensor) -> Tensor:  # noqa: ARG002  # as a step is called
        self.steps += 1
        if self.steps == self.fails_at:
            raise RuntimeError("out of memory")
        for _ in range(self.spins):
            torch.eye(8).sum()
        return NOTHING

    def restore(self) -> None:
        pass


def make_arm(seed: int, **settings: int) -> Timeable:
    return Arm(seed, **settings)


def test_a_pair_takes_turns_and_the_slower_side_is_slower() -> None:
    slow = partial(make_arm, spins=2000)
    pairs = [restart(make_arm, slow, index=index, quads=2, steps=1) for index in range(4)]
    assert [pair.order for pair in pairs] == ["ABBABAAB", "ABBABAAB", "BAABABBA", "BAABABBA"]
    # Ten times the work; a busy machine may hide it from a pair, not from most of four.
    assert statistics.median(pair.point("B", over="A") for pair in pairs) > 2


@pytest.mark.parametrize(
    ("fails_at", "message"),
    [(0, "ValueError: no arm for seed 3"), (1, "RuntimeError: out of memory")],
    ids=["building", "warming-up"],
)
def test_an_arm_that_cannot_be_made_ready_is_told(fails_at: int, message: str) -> None:
    with (
        Worker(partial(make_arm, fails_at=fails_at), seed=3, steps=1) as worker,
        pytest.raises(WorkerError, match=message),
    ):
        worker.ready()


def test_a_step_that_fails_later_is_told_where_it_was_asked_for() -> None:
    with Worker(partial(make_arm, fails_at=30), seed=0, steps=1) as worker:
        worker.ready()
        # It took some steps to warm up, and at most 12.
        blocks = (worker.block() for _ in range(30))
        with pytest.raises(WorkerError, match="RuntimeError: out of memory"):
            list(blocks)


def test_a_worker_that_is_killed_is_told() -> None:
    with Worker(make_arm, seed=0, steps=1) as worker:
        worker.ready()
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(WorkerError, match="ended with -9"):
            worker.block()


def test_a_worker_that_hangs_is_told_and_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker_study._PATIENCE_S", 0.2)
    monkeypatch.setattr("worker_study._GRACE_S", 0.2)
    hung = partial(make_arm, spins=10**9)
    with Worker(hung, seed=0, steps=1) as worker, pytest.raises(WorkerError, match="no answer"):
        worker.ready()
    with pytest.raises(ProcessLookupError):
        os.kill(worker.pid, 0)


def test_a_worker_leaves_ctrl_c_to_whoever_started_it() -> None:
    with Worker(make_arm, seed=0, steps=1) as worker:
        worker.ready()
        os.kill(worker.pid, signal.SIGINT)
        assert worker.block().steps == 1


def test_every_worker_is_a_process_of_its_own_and_gone_afterwards() -> None:
    pids = set()
    for _ in range(2):
        with Worker(make_arm, seed=0, steps=1) as worker:
            worker.ready()
            pids.add(worker.pid)
    assert len(pids | {os.getpid()}) == 3
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
