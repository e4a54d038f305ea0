"""The coordinator's handles of other processes: a server for each side, and its workers."""

import os
import signal
import socket
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Self, TypeVar

from perfsuite.against import messages
from perfsuite.against.messages import Answer, Line, LineClosedError, MessageError, Request
from perfsuite.devices.choice import FORK_ENVIRONMENT
from perfsuite.judging import stopping
from perfsuite.judging.blocks import Block

_BOOTSTRAP = Path(__file__).parent / "worker" / "bootstrap.py"
_NOT_INHERITED = ("PYTEST_ADDOPTS", "PYTEST_CURRENT_TEST", "PYTHONHOME")
_TIMEOUT_S = 300.0
"""A process that says nothing for so long hangs; what takes longer shows progress."""

Expected = TypeVar("Expected", bound=Answer)


class SideError(RuntimeError):
    """A side that ended, or could not do what it was asked.

    Attributes:
        side: "before" or "after".
        reason: why, in one line.
    """

    def __init__(self, side: str, reason: str) -> None:
        super().__init__(f"{side}: {reason}")
        self.side = side
        self.reason = reason


def _receive(line: Line[Answer], side: str) -> Answer:
    """Return the next answer that is no failure.

    Raises:
        SideError: it is one, or there is none in time, or it cannot be read.
        LineClosedError: the process has gone.
    """
    try:
        answer = line.receive(_TIMEOUT_S)
    except TimeoutError:
        raise SideError(side, f"gave no answer for {_TIMEOUT_S:g} s") from None
    except MessageError as error:
        raise SideError(side, f"sent an answer that cannot be read: {error}") from None
    if isinstance(answer, messages.Failed):
        raise SideError(side, answer.reason)
    return answer


def _expected(answer: Answer, side: str, kind: type[Expected]) -> Expected:
    if isinstance(answer, kind):
        return answer
    raise SideError(side, f"answered {type(answer).__name__} instead of {kind.__name__}")


class ServerController:
    """Starts and ends the server of one side, a process group of its own.

    Args:
        setup: what its bootstrap needs to know.
        python: the interpreter.
        folder: where it is started.
        log: where everything that it prints goes.

    Raises:
        SideError: the interpreter cannot be started.
    """

    def __init__(self, setup: messages.Setup, *, python: str, folder: Path, log: Path) -> None:
        self.side = setup.side
        self._log = log
        self._workers: set[int] = set()
        ours, theirs = socket.socketpair()
        environment = {k: v for k, v in os.environ.items() if k not in _NOT_INHERITED}
        # Neither tree is to be written to, and both sides are to compile alike.
        environment["PYTHONDONTWRITEBYTECODE"] = "1"
        environment.setdefault("PYTHONHASHSEED", "0")
        environment |= FORK_ENVIRONMENT
        try:
            with log.open("wb") as output:
                self._process = subprocess.Popen(
                    [python, "-P", str(_BOOTSTRAP), str(theirs.fileno())],
                    cwd=folder,
                    env=environment,
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # Ctrl-C is the coordinator's; it ends the group
                )
        except OSError as error:
            ours.close()
            raise SideError(self.side, f"{python} cannot be started: {error.strerror}") from None
        finally:
            theirs.close()
        self._line = Line(ours.detach(), messages.ANSWERS)
        with suppress(LineClosedError):  # told when it is asked what it has collected
            self._line.send(setup)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End the server and all its workers at once: none of them has anything to save."""
        for pid in (self._process.pid, *self._workers):
            _kill_group(pid)
        self._process.wait()
        self._line.close()

    def collected(self) -> messages.Collected:
        """Return what the side has, once all of it is imported; raises SideError."""
        return self._receive(messages.Collected)

    def start(self, key: str, index: int, report: stopping.Progress) -> "WorkerController":
        """Have a worker forked for a benchmark; it waits to be told to go.

        Args:
            key: of the benchmark.
            index: of the restart; seeds whatever random numbers the worker draws.
            report: called while it works.

        Raises:
            SideError: the server has gone.
        """
        ours, theirs = socket.socketpair()
        try:
            self._send(messages.Start(key=key, index=index), share=theirs.fileno())
            pid = self._receive(messages.Started).pid
        except SideError:
            ours.close()
            raise
        finally:
            theirs.close()
        self._workers.add(pid)
        return WorkerController(self, Line(ours.detach(), messages.ANSWERS), pid, report)

    def wait(self, pid: int) -> int:
        """Wait for a worker's end; return its exit code, or minus the signal that ended it.

        Raises:
            SideError: the server has gone.
        """
        self._send(messages.Wait(pid=pid))
        code = self._receive(messages.Ended).code
        _kill_group(pid)  # what it has started and left running
        self._workers.discard(pid)
        return code

    def _send(self, request: Request, *, share: int | None = None) -> None:
        try:
            self._line.send(request, share=share)
        except LineClosedError:
            raise self._gone() from None

    def _receive(self, kind: type[Expected]) -> Expected:
        try:
            return _expected(_receive(self._line, self.side), self.side, kind)
        except LineClosedError:
            raise self._gone() from None

    def _gone(self) -> SideError:
        """Say how the server ended, by what it printed last."""
        code = self._process.wait()
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        raised = [line[2:].strip() for line in lines if line.startswith("E ")]
        printed = [line.strip() for line in lines if line.strip()]
        last = (raised or printed or ["nothing"])[-1]
        return SideError(self.side, f"its server ended with {_ending(code)}, saying: {last}")


class WorkerController:
    """Directs a worker: a fresh process that runs one benchmark, and waits before each block."""

    def __init__(
        self, server: ServerController, line: Line[Answer], pid: int, report: stopping.Progress
    ) -> None:
        self._server = server
        self._line = line
        self._report = report
        self._alive = True
        self.pid = pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._alive:
            _kill_group(self.pid)
            with suppress(SideError):
                self._wait()
        self._line.close()

    def go(self, *, explain: bool = False) -> messages.Ready | messages.Done:
        """Let it run on until it waits again, or is done.

        Args:
            explain: let it profile what it has timed.

        Raises:
            SideError: it ended, or could not run the benchmark.
        """
        answer = self._ask(messages.Go(explain=explain))
        if isinstance(answer, messages.Done):
            self._wait()
            return answer
        return _expected(answer, self._server.side, messages.Ready)

    def block(self) -> Block:
        """Return the timing of the next block; raises SideError if it ended, or a step raised."""
        return _expected(self._ask(messages.TakeBlock()), self._server.side, messages.Timed).block

    def _ask(self, request: Request) -> Answer:
        try:
            self._line.send(request)
            while isinstance(answer := _receive(self._line, self._server.side), messages.Progress):
                self._report(answer.done, answer.of)
        except LineClosedError:
            raise SideError(self._server.side, f"ended with {_ending(self._wait())}") from None
        return answer

    def _wait(self) -> int:
        self._alive = False
        return self._server.wait(self.pid)


def _kill_group(leader: int) -> None:
    with suppress(ProcessLookupError, PermissionError):  # there may be nothing left of it
        os.killpg(leader, signal.SIGKILL)


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    hint = ", as a process does that takes more memory than there is" * (code == -signal.SIGKILL)
    return f"{signal.Signals(-code).name}{hint}"
