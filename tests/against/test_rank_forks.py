"""Forks that are ranks: each knows its place, they find each other, and none outlives another."""

import os
import signal
import time
from collections.abc import Mapping
from typing import NoReturn

import pytest

from perfsuite.against.messages import Ended
from perfsuite.against.worker.rank_forks import SAID_WHY, RankForks, Rendezvous
from perfsuite.devices.torchrun import Seat, seat


def test_ranks_find_each_other_by_a_port_that_the_system_has_chosen() -> None:
    def work(at: Seat, rendezvous: Rendezvous | None) -> NoReturn:
        code = 1
        try:
            assert rendezvous is not None
            said = rendezvous.environment(at)
            assert seat(said) == at
            store = rendezvous.store(at)
            store.set(f"rank {at.rank}", said["MASTER_PORT"])
            ports = {store.get(f"rank {rank}") for rank in range(at.ranks)}
            store.add("done", 1)
            while at.leads and store.add("done", 0) < at.ranks:  # it is rank 0's
                time.sleep(0.001)
            code = 0 if len(ports) == 1 else 2
        finally:
            os._exit(code)

    assert RankForks(3, work).ended() == Ended(code=0)


@pytest.mark.parametrize(
    ("ends", "how"),
    [
        ({1: -signal.SIGKILL}, Ended(code=-signal.SIGKILL, rank=1)),
        ({2: 3}, Ended(code=3, rank=2)),
        ({0: -signal.SIGABRT, 1: 1, 2: -signal.SIGKILL}, Ended(code=-signal.SIGKILL, rank=2)),
        ({0: SAID_WHY, 1: -signal.SIGSEGV}, Ended(code=-signal.SIGSEGV, rank=1)),
        ({1: SAID_WHY}, Ended(code=0)),
    ],
    ids=["killed", "exits", "killed-before-others", "blamed", "said-why"],
)
def test_ranks_end_with_the_first_that_does_not_end_well(
    ends: Mapping[int, int], how: Ended
) -> None:
    def work(at: Seat, _: Rendezvous | None) -> NoReturn:
        code = ends.get(at.rank)
        if code is None:
            time.sleep(1000)
        assert code is not None
        if code < 0:
            os.kill(os.getpid(), -code)
        os._exit(code)

    forks = RankForks(3, work)
    for pid in [pid for rank, pid in forks._running.items() if rank in ends]:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # so that all are seen at once
    assert forks.ended() == how
    with pytest.raises(ProcessLookupError):
        os.killpg(forks.pid, 0)


def test_one_process_is_no_rank() -> None:
    def work(at: Seat, rendezvous: Rendezvous | None) -> NoReturn:
        os._exit(0 if at == Seat() and rendezvous is None else 1)

    assert RankForks(1, work).ended() == Ended(code=0)
