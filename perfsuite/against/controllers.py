"""The coordinator's handles of other processes: a server for each side, and its workers."""

import os
import signal
import socket
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self, TypeVar

from perfsuite.against import messages
from perfsuite.against.messages import Answer, Line, LineClosedError, MessageError, Request
from perfsuite.judging.blocks import Block
from perfsuite.judging.fitting import Attempt, Tried
from perfsuite.judging.stopping import ShowCount
from perfsuite.records.wording import ending
from perfsuite.session.stash import NOT_INHERITED

_BOOTSTRAP = Path(__file__).parent / "worker" / "bootstrap.py"
_TIMEOUT_S = 300.0  # a process that says nothing for so long hangs; longer work shows progress

Expected = TypeVar("Expected", bound=Answer)


class SideError(RuntimeError):
    """A side, "before" or "after", that ended or could not do what it was asked; in one line."""

    def __init__(self, side: str, reason: str, *, killed: bool = False) -> None:
        super().__init__(f"{side}: {reason}")
        self.side = side
        self.reason = reason
        self.killed = killed  # whether it is of a worker that SIGKILL ended


class _Controller:
    """Directs a process of one side; whatever it does not do raises SideError."""

    def __init__(self, side: str, line: Line[Answer], report: ShowCount | None = None) -> None:
        self.side = side
        self._line = line
        self._report = report

    def __enter__(self) -> Self:
        return self

    def _ask(
        self, request: Request | None, kind: type[Expected], *, share: int | None = None
    ) -> Expected:
        return self._checked(self._answer(request, share), kind)

    def _answer(self, request: Request | None, share: int | None = None) -> Answer:
        try:
            if request is not None:
                with suppress(LineClosedError):  # it may have said why before it ended
                    self._line.send(request, share=share)
            answer = self._line.receive(_TIMEOUT_S)
            while self._report is not None and isinstance(answer, messages.Progress):
                self._report(answer.done, answer.of)
                answer = self._line.receive(_TIMEOUT_S)
        except TimeoutError:
            raise SideError(self.side, f"gave no answer for {_TIMEOUT_S:g} s") from None
        except MessageError as error:
            reason = f"sent an answer that cannot be read: {error}"
            raise SideError(self.side, reason) from None
        except LineClosedError:
            raise self._how_it_ended() from None
        if isinstance(answer, messages.Failed):
            raise self._why_it_failed(answer.reason)
        return answer

    def _checked(self, answer: Answer, kind: type[Expected]) -> Expected:
        if isinstance(answer, kind):
            return answer
        reason = f"answered {type(answer).__name__} instead of {kind.__name__}"
        raise SideError(self.side, reason)

    def _why_it_failed(self, told: str) -> SideError:
        return SideError(self.side, told)

    def _how_it_ended(self) -> SideError:
        raise NotImplementedError


class ServerController(_Controller):
    """Starts and ends the server of one side, a process group of its own that prints to `log`.

    Its `environment` is laid over this process's; `name` is told for its side's.
    """

    def __init__(
        self,
        setup: messages.Setup,
        *,
        python: str,
        folder: Path,
        log: Path,
        environment: Mapping[str, str],
        name: str | None = None,
    ) -> None:
        self._log = log
        self.ranks = setup.ranks
        self._workers: set[int] = set()
        ours, theirs = socket.socketpair()
        inherited = {k: v for k, v in os.environ.items() if k not in NOT_INHERITED}
        # Neither tree is to be written to, and both sides are to compile alike.
        inherited["PYTHONDONTWRITEBYTECODE"] = "1"
        inherited.setdefault("PYTHONHASHSEED", "0")
        try:
            with log.open("wb") as output:
                self._process = subprocess.Popen(
                    [python, "-P", str(_BOOTSTRAP), str(theirs.fileno())],
                    cwd=folder,
                    env={**inherited, **environment},
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # Ctrl-C is the coordinator's; it ends the group
                )
        except OSError as error:
            ours.close()
            reason = f"{python} cannot be started: {error.strerror}"
            raise SideError(name or setup.side, reason) from None
        finally:
            theirs.close()
        super().__init__(name or setup.side, Line(ours.detach(), messages.ANSWERS))
        with suppress(LineClosedError):  # told when it is asked what it has collected
            self._line.send(setup)

    def __exit__(self, *_: object) -> None:
        """End the server and all its workers at once: none of them has anything to save."""
        for pid in (self._process.pid, *self._workers):
            _kill_group(pid)
        self._process.wait()
        self._line.close()

    def collected(self) -> messages.Collected:
        """Return what the side has, once all of it is imported."""
        return self._ask(None, messages.Collected)

    def start(
        self, key: str, index: int, report: ShowCount, *, config: Mapping[str, Any] | None = None
    ) -> "WorkerController":
        """Have a worker forked for restart `index` of a benchmark; it waits to be told to go.

        What it would look for by itself, such as a batch, it takes from `config`, if it is there.
        """
        ours, theirs = socket.socketpair()
        try:
            request = messages.Start(key=key, index=index, config=dict(config or {}))
            pid = self._ask(request, messages.Started, share=theirs.fileno()).pid
        except SideError:
            ours.close()
            raise
        finally:
            theirs.close()
        self._workers.add(pid)
        return WorkerController(self, Line(ours.detach(), messages.ANSWERS), pid, report)

    def wait(self, pid: int) -> messages.Ended:
        """Wait for a worker's end; return how it ended."""
        ended = self._ask(messages.Wait(pid=pid), messages.Ended)
        _kill_group(pid)  # what it has started and left running
        self._workers.discard(pid)
        return ended

    def _how_it_ended(self) -> SideError:
        how, said = ending(self._process.wait()), self.said() or "nothing"
        return SideError(self.side, f"its server ended with {how}, saying: {said}")

    def printed_bytes(self) -> int:
        """Return how much the server and its workers have printed."""
        return self._log.stat().st_size

    def said(self, start: int = 0) -> str:
        """Return the line printed last, from byte `start` on; that of an error first."""
        text = self._log.read_bytes()[start:].decode("utf-8", errors="replace")
        lines = text.splitlines()
        raised = [line[2:].strip() for line in lines if line.startswith("E ")]
        return (raised or [""] + [line.strip() for line in lines if line.strip()])[-1]


class WorkerController(_Controller):
    """Directs a worker: a fresh process that runs one benchmark, and waits before each block."""

    def __init__(
        self, server: ServerController, line: Line[Answer], pid: int, report: ShowCount
    ) -> None:
        super().__init__(server.side, line, report)
        self._server = server
        self._alive = True
        self._printed_bytes = server.printed_bytes()
        self.pid = pid

    def __exit__(self, *_: object) -> None:
        if self._alive:
            _kill_group(self.pid)
            with suppress(SideError):
                self._wait()
        self._line.close()

    def go(self, *, explain: bool = False) -> messages.Ready | messages.Done:
        """Let it run on until it waits again, or is done; `explain` lets it profile."""
        answer = self._answer(messages.Go(explain=explain))
        if isinstance(answer, messages.Done):
            self._wait()
            return answer
        return self._checked(answer, messages.Ready)

    def block(self) -> Block:
        """Return the timing of the next block."""
        return self._ask(messages.TakeBlock(), messages.Timed).block

    def tries(self, attempt: Attempt) -> Tried:
        """Return what comes of a try, after `go`."""
        return self._ask(messages.Try(attempt=attempt), messages.TriedOut).tried

    def _wait(self) -> messages.Ended:
        self._alive = False
        return self._server.wait(self.pid)

    def _why_it_failed(self, told: str) -> SideError:
        ended = self._wait()
        # What a rank says of another that was killed is no reason.
        return self._ended_untold(ended) if ended.code else SideError(self.side, told)

    def _how_it_ended(self) -> SideError:
        return self._ended_untold(self._wait())

    def _ended_untold(self, ended: messages.Ended) -> SideError:
        code, ranks = ended.code, self._server.ranks
        how = f"ended with {ending(code)}"
        if ranks > 1:  # any of them may have printed
            how = f"rank {ended.rank} of {ranks} {how}"
        elif last := self._server.said(self._printed_bytes):
            how += f", saying: {last}"
        return SideError(self.side, how, killed=code == -signal.SIGKILL)


def _kill_group(leader: int) -> None:
    with suppress(ProcessLookupError, PermissionError):  # there may be nothing left of it
        os.killpg(leader, signal.SIGKILL)
