"""The ranks of a restart: a fork of the server each, which find each other, and end together."""

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import partial
from typing import Any, NoReturn
from warnings import catch_warnings, simplefilter

from perfsuite.against.messages import Ended, Line, LineClosedError, Request, Start, Started, Wait
from perfsuite.devices.torchrun import Seat

SAID_WHY = 70
"""The exit code of a rank that has told why it failed."""
_HOST = "127.0.0.1"
_LOOK_S = 0.005  # between two looks at who has ended, once that is all that is waited for
_SELDOM_S = 0.5  # and while a benchmark runs: one may end while others wait for it
_LONG = timedelta(days=7)  # it is the coordinator that does not wait for ever


@contextmanager
def forking() -> Iterator[None]:
    """Keep Python >= 3.12 from warning of OpenBLAS's threads, which are made to be forked."""
    with catch_warnings():
        simplefilter("ignore", DeprecationWarning)
        yield


class Rendezvous:
    """Where the ranks of a restart find each other: a port that the system has chosen."""

    def __init__(self) -> None:
        self._listening = socket.create_server((_HOST, 0))
        self._port: int = self._listening.getsockname()[1]

    def environment(self, at: Seat) -> dict[str, str]:
        """Return what torchrun would say to a rank of this host."""
        return {
            "RANK": str(at.rank),
            "LOCAL_RANK": str(at.local_rank),
            "WORLD_SIZE": str(at.ranks),
            "LOCAL_WORLD_SIZE": str(at.local_ranks),
            "MASTER_ADDR": _HOST,
            "MASTER_PORT": str(self._port),
        }

    def store(self, at: Seat) -> Any:
        """Return the store of torch.distributed; the other ranks wait until rank 0 asks for it."""
        from torch import distributed as dist

        descriptor = self._listening.detach() if at.leads else None
        self.close()  # or they would wait for a rank 0 that has ended
        return dist.TCPStore(  # type: ignore[attr-defined]  # torch says so in its documentation
            _HOST,
            self._port,
            is_master=at.leads,
            master_listen_fd=descriptor,
            wait_for_workers=False,
            timeout=_LONG,
        )

    def close(self) -> None:
        """Let go of the port; whoever has its store keeps that."""
        self._listening.close()


class RankForks:
    """The forks of a restart, one a rank; that of rank 0 leads the process group of them all.

    Args:
        ranks: how many; one is no rank among others, and is told of no rendezvous.
        work: what each of them does, to its end.
    """

    def __init__(self, ranks: int, work: Callable[[Seat, Rendezvous | None], NoReturn]) -> None:
        self._codes: dict[int, int] = {}  # of those that have ended by themselves, by rank
        self._running: dict[int, int] = {}
        rendezvous = Rendezvous() if ranks > 1 else None
        for rank in range(ranks):
            with forking():
                pid = os.fork()
            if pid == 0:
                with suppress(OSError):  # its parent did so
                    os.setpgid(0, self._running.get(0, 0))
                work(Seat(rank=rank, ranks=ranks, local_rank=rank, local_ranks=ranks), rendezvous)
            self._running[rank] = pid
            self.pid = self._running[0]
            with suppress(OSError):
                os.setpgid(pid, self.pid)
        if rendezvous is not None:
            rendezvous.close()

    def look(self) -> None:
        """Note who has ended; where one has not ended well, end those that wait for it."""
        for rank, pid in list(self._running.items()):
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                del self._running[rank]
                self._codes[rank] = os.waitstatus_to_exitcode(status)
        if self._running and any(self._codes.values()):
            self.kill()

    def kill(self) -> None:
        """End those that are left, with whatever any of them has started."""
        with suppress(ProcessLookupError, PermissionError):  # nothing is left
            os.killpg(self.pid, signal.SIGKILL)
        for pid in self._running.values():
            os.waitpid(pid, 0)
        self._running.clear()

    def ended(self) -> Ended:
        """Wait for all of them; return how the first ended that did not say why, or 0."""
        self.look()
        while self._running:
            time.sleep(_LOOK_S)
            self.look()
        untold = [(code, rank) for rank, code in self._codes.items() if code not in (0, SAID_WHY)]
        # Where several have, one was killed, and the others ended by what they made of that.
        untold.sort(key=lambda each: (each[0] != -signal.SIGKILL, each[0] > 0))
        code, rank = untold[0] if untold else (0, 0)
        return Ended(code=code, rank=rank)


def serve_restarts(
    line: Line[Request], ranks: int, work: Callable[[Start, int, Seat, Rendezvous | None], NoReturn]
) -> None:
    """Fork what is asked for, and wait for it, until the other end hangs up; then end what is left.

    A fork calls `work`, with the socket of its worker.
    """
    restarts: dict[int, RankForks] = {}  # that nobody has waited for yet

    def asked() -> Request:
        while True:
            try:
                return line.receive(_SELDOM_S if restarts and ranks > 1 else None)
            except TimeoutError:
                for restart in restarts.values():
                    restart.look()

    try:
        while True:
            match asked():
                case Start() as start:
                    theirs = line.shared()
                    forks = RankForks(ranks, partial(work, start, theirs))
                    os.close(theirs)  # or nobody would see the worker end
                    restarts[forks.pid] = forks
                    line.send(Started(pid=forks.pid))
                case Wait(pid=pid):
                    line.send(restarts.pop(pid).ended())
    except LineClosedError:
        for restart in restarts.values():  # those that wait for each other do not end by themselves
            restart.kill()
