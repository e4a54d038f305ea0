"""The watch over the ranks of a session: none of them waits for one that will never come.

A thread in each rank posts what it does, about once a second, and rank 0's reads it all and judges;
the others see that rank 0 is there. A main thread that waits in a collective cannot be interrupted,
so that it is the thread which ends the process, once one of them has said why.
"""

import os
import select
import signal
import socket
import sys
import sysconfig
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

import msgspec
import psutil
import pytest

import perfsuite
from perfsuite.devices.notices import collectives_started, notices
from perfsuite.devices.ranks import Ranks
from perfsuite.judging.rank_faults import HANG_S, SILENT_S, Posting, fault
from perfsuite.session.stash import LAUNCHER

_BEAT_S = 1.0
_SPOKEN_S = 3.0  # for so long whoever said why waits until the others have read it
_LOST_S = 60.0  # for so long a main thread that lost the others waits for its end
_LIBRARIES = (*map(sysconfig.get_path, ("stdlib", "platstdlib")), perfsuite.__path__[0])


class RankWatch:
    """Watches over ranks from when it is made until it is ended; made by all of them."""

    hang_s = HANG_S

    def __init__(self, ranks: Ranks, terminal: int) -> None:
        """Start; `terminal` is a descriptor of what the user reads."""
        self._ranks, self._terminal = ranks, terminal
        self._main = threading.main_thread().ident
        self._parents = _parents()
        self._board = self._ours = notices(ranks)
        self._failed, self._failed_at_s = "", 0.0
        self._doors = 0
        self._alone = 0
        now_s = time.monotonic()
        self._met = (ranks.passed, now_s)  # meetings, and when the last was passed
        self._longest_s = 0.0
        self._stood: tuple[object, float] = (None, now_s)
        self._doing = ""
        self._heard = dict.fromkeys(range(len(ranks)), (b"", now_s))
        self._beats = 0
        self._wakes, self._wake = socket.socketpair()
        self._wake.setblocking(False)
        self._former_wakeup = signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        self._post()
        ranks.meet()  # now there is something to read of each
        ranks.on_lost = self._lost
        self._board = self._ours.another()
        self._thread = threading.Thread(target=self._run, name="perfsuite-watch", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """End the watch, once all have come so far: none needs another any more."""
        self.door("end", "it ended its session before the others")
        self._wake.send(b"\0")
        self._thread.join()
        signal.set_wakeup_fd(self._former_wakeup)
        self._wakes.close()
        self._wake.close()
        self._ranks.meet()  # the store goes with rank 0

    def door(self, name: str, failed: str = "") -> None:
        """Wait until all ranks are here, by way of the store.

        A rank may come while others are in the midst of what it has left: they could not tell its
        collective from theirs. Where it `failed`, and they wait for it elsewhere, all are ended.
        """
        self._failed, self._failed_at_s = failed, time.monotonic()
        self._doors += 1
        with self._ranks.meeting():
            self._ours.gather(f"{name} {self._doors}", len(self._ranks))
        self._failed = ""

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Let rank 0 do what the others wait for, however long it takes."""
        self._alone += 1
        try:
            yield
        finally:
            self._alone -= 1
            self._met = (self._ranks.passed, time.monotonic())

    def wait_for_report(self) -> None:
        """Let rank 0 save and report, until the end, however long it takes."""
        self._alone += self._leads

    def _run(self) -> None:
        while True:
            ready, _, _ = select.select([self._wakes], [], [], _BEAT_S)
            signals = self._wakes.recv(4096) if ready else b""
            if signal.SIGINT in signals:
                self._speak("interrupted; all ranks end, and no run is written", self._leads)
                self._exit(pytest.ExitCode.INTERRUPTED)
            if 0 in signals:
                return
            if _parents() != self._parents:
                self._speak("what started the ranks is gone, and they end", self._leads)
                self._exit()
            try:
                self._post()
                self._judge()
            except RuntimeError:  # of the store
                at = self._ranks.seat
                where = f", in {self._doing}" if self._doing else ""
                why = f"rank 0 of {at.ranks} is gone{where}: it was killed, or its machine is gone"
                first = at.rank - at.local_rank or 1  # a line of each node: who else is left?
                self._speak(why, at.rank == first)
                self._exit()

    @property
    def _leads(self) -> bool:
        return self._ranks.seat.leads

    def _post(self) -> None:
        now_s = time.monotonic()
        self._doing = _test() or self._doing
        passed, since_s = self._met
        if self._ranks.passed != passed:
            self._longest_s = max(self._longest_s, now_s - since_s)
            self._met = (self._ranks.passed, now_s)
        if self._alone or self._ranks.works_alone:
            self._met = (self._ranks.passed, now_s)
        frame = sys._current_frames().get(self._main or 0)
        where = _stack(frame)
        if where != self._stood[0]:
            self._stood = (where, now_s)
        unmet_s = now_s - self._met[1]
        waits = self._ranks.entered > self._ranks.passed
        self._beats += 1
        posting = Posting(
            doing=self._doing,
            failed=self._failed,
            failed_s=now_s - self._failed_at_s,
            entered=self._ranks.entered,
            collectives=collectives_started(),
            unmet_s=unmet_s,
            longest_s=self._longest_s,
            stands_s=unmet_s if waits else now_s - self._stood[1],
            place=_place(frame),
        )
        text = f"{self._beats} {msgspec.json.encode(posting).decode()}"
        self._board.post(f"rank {self._ranks.seat.rank}", text)

    def _judge(self) -> None:
        if self._board.look("why") is not None:
            self._board.come("read")
            self._exit()
        # Rank 0 judges all of them, so that what is read grows with the ranks, and not faster.
        posted = self._read(range(len(self._ranks)) if self._leads else [0])
        if self._leads:
            why = fault(posted, self.hang_s)
        else:
            silent = posted[0].heard_s > SILENT_S
            others = [Posting()] * (len(self._ranks) - 1)
            why = fault([posted[0], *others]) if silent else None
        if why is None:
            return
        told = self._board.claim("why", f"rank {self._ranks.seat.rank}: {why}")
        self._speak(why, told)
        if told:
            end_s = time.monotonic() + _SPOKEN_S
            while self._board.look("read") != str(len(self._ranks) - 1):
                if time.monotonic() > end_s:
                    break
                time.sleep(0.1)
        self._exit()

    def _read(self, ranks: range | list[int]) -> list[Posting]:
        found = []
        texts = self._board.read([f"rank {rank}" for rank in ranks])
        now_s = time.monotonic()
        for rank, text in zip(ranks, texts, strict=True):
            if text != self._heard[rank][0]:
                self._heard[rank] = (text, now_s)
            posting = msgspec.json.decode(text.partition(b" ")[2], type=Posting)
            heard_s = now_s - self._heard[rank][1]
            found.append(msgspec.structs.replace(posting, heard_s=heard_s))
        return found

    def _lost(self, error: RuntimeError) -> None:
        """Wait for the end in a main thread that cannot go on; the watch tells why it cannot."""
        why = str(error).strip().partition("\n")[0]
        self._failed = self._failed or f"it lost its connection to the others: {why}"
        self._failed_at_s = time.monotonic()
        self._thread.join(_LOST_S)

    def _speak(self, line: str, speaks: bool) -> None:
        if speaks:
            with suppress(OSError):
                os.write(self._terminal, f"\nERROR: {line}\n".encode())

    def _exit(self, code: pytest.ExitCode = pytest.ExitCode.TESTS_FAILED) -> NoReturn:
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                child.kill()
        os._exit(code)


def _parents() -> tuple[int, int | None]:
    """Return who started this process, and who started that, where it is told to depend on it."""
    parent, launcher = os.getppid(), os.environ.get(LAUNCHER)
    if launcher is None:
        return parent, None
    try:
        return parent, psutil.Process(parent).ppid()
    except psutil.Error:
        return parent, 0


def _test() -> str:
    """Return the test that runs, by what pytest says of it in the environment."""
    name, _, _ = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")
    return name.rpartition("::")[2]


def _stack(frame: FrameType | None) -> tuple[tuple[int, int], ...]:
    found = []
    while frame is not None:
        found.append((id(frame.f_code), frame.f_lineno))
        frame = frame.f_back
    return tuple(found)


def _place(innermost: FrameType | None) -> str:
    """Return the innermost place that is the user's, or else the innermost of all."""
    frame = innermost
    while frame is not None and _of_library(frame.f_code.co_filename):
        frame = frame.f_back
    frame = frame or innermost
    if frame is None:
        return "no code"
    code = frame.f_code
    return f"{Path(code.co_filename).name}:{frame.f_lineno} ({code.co_name})"


def _of_library(file: str) -> bool:
    return file.startswith(("<", *_LIBRARIES)) or "site-packages" in file
