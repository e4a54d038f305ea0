"""The two sides of a comparison, as their coordinator sees them: servers, and their workers."""

import os
import signal
import socket
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import msgspec

from perfsuite.against.messages import Line, LineClosedError
from perfsuite.devices.choice import FORK_ENVIRONMENT
from perfsuite.judging.blocks import Block
from perfsuite.judging.stopping import Progress

_BOOT = Path(__file__).parent / "worker" / "bootstrap.py"

_PATIENCE_S = 300.0
"""A process that says nothing for so long hangs; what takes longer shows progress."""


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


class Collected(msgspec.Struct, frozen=True, kw_only=True):
    """What a side has to offer.

    Attributes:
        items: the names of each benchmark's markers, by key.
        errors: why a file could not be collected, by its path in the suite.
        prefix: of the interpreter.
        hardware: what it runs on, as in a run's JSON.
        software: versions.
        loaded: packages imported, by where they came from (`trees.Trees.loaded`).
    """

    items: dict[str, list[str]]
    errors: dict[str, str]
    prefix: str
    hardware: dict[str, Any]
    software: dict[str, Any]
    loaded: dict[str, list[str]]

    def why_not(self, file: str) -> str | None:
        """Return why a file of the suite, or a folder it lies in, was not collected."""
        places = [file, *(parent.as_posix() for parent in Path(file).parents)]
        return next((self.errors[place] for place in places if place in self.errors), None)


class Side:
    """A server process with one side's code, in a process group of its own.

    Args:
        name: "before" or "after".
        python: the interpreter.
        folder: where it is started.
        setup: what `boot` needs to know.
        log: where everything that it prints goes.

    Raises:
        SideError: the interpreter cannot be started.
    """

    def __init__(
        self, name: str, *, python: str, folder: Path, setup: Mapping[str, Any], log: Path
    ) -> None:
        self.name = name
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
                    [python, "-P", str(_BOOT), str(theirs.fileno())],
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
            raise SideError(name, f"{python} cannot be started: {error.strerror}") from None
        finally:
            theirs.close()
        self._line = Line(ours.detach())
        with suppress(LineClosedError):  # told when it is asked what there is
            self._line.send("setup", side=name, **setup)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def collected(self) -> Collected:
        """Return what there is, once all of it is imported.

        Raises:
            SideError: it did not get there.
        """
        return msgspec.convert(self._ask(), Collected)

    def start(self, key: str, index: int, progress: Progress | None = None) -> "Worker":
        """Fork a worker for a benchmark, which waits to be told to go.

        Args:
            key: of the benchmark.
            index: of the restart; seeds whatever random numbers the worker draws.
            progress: called while it works.

        Raises:
            SideError: the server has gone.
        """
        ours, theirs = socket.socketpair()
        try:
            self._tell("start", key=key, index=index, share=theirs.fileno())
            pid = self._ask()["pid"]
        except SideError:
            ours.close()
            raise
        finally:
            theirs.close()
        self._workers.add(pid)
        return Worker(self, Line(ours.detach()), pid, progress)

    def ended(self, pid: int) -> int:
        """Wait for a worker's end; return its exit code, or minus the signal that ended it.

        Raises:
            SideError: the server has gone.
        """
        self._tell("ended", pid=pid)
        code = int(self._ask()["code"])
        end_group(pid)  # what it has started and left running
        self._workers.discard(pid)
        return code

    def close(self) -> None:
        """End the server and all its workers at once: none of them has anything to save."""
        for pid in (self._process.pid, *self._workers):
            end_group(pid)
        self._process.wait()
        self._line.close()

    def _tell(self, kind: str, **content: Any) -> None:
        try:
            self._line.send(kind, **content)
        except LineClosedError:
            raise self._gone() from None

    def _ask(self) -> dict[str, Any]:
        try:
            answer = self._line.receive(_PATIENCE_S)
        except TimeoutError:
            raise SideError(self.name, f"gave no answer for {_PATIENCE_S:g} s") from None
        except LineClosedError:
            raise self._gone() from None
        if answer["kind"] == "failed":
            raise SideError(self.name, answer["reason"])
        return answer

    def _gone(self) -> SideError:
        """Say how the server ended, by what it printed last."""
        code = self._process.wait()
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        raised = [line[2:].strip() for line in lines if line.startswith("E ")]
        said = [line.strip() for line in lines if line.strip()]
        last = (raised or said or ["nothing"])[-1]
        return SideError(self.name, f"its server ended with {_ending(code)}, saying: {last}")


class Worker:
    """A fresh process that runs one benchmark, and waits wherever a block is to be timed.

    Args:
        side: whose it is.
        line: to the process.
        pid: its number.
        progress: called while it works.
    """

    def __init__(self, side: Side, line: Line, pid: int, progress: Progress | None) -> None:
        self._side = side
        self._line = line
        self._progress = progress
        self._works = True
        self.pid = pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._works:
            end_group(self.pid)
            with suppress(SideError):
                self._side.ended(self.pid)
        self._line.close()

    def go(self, *, explain: bool = False) -> dict[str, Any]:
        """Let it run on; return what it says when it waits ("ready") or is through ("done").

        Args:
            explain: let it profile what it has timed.

        Raises:
            SideError: it ended, or could not run the benchmark.
        """
        answer = self._ask("explain" if explain else "go")
        if answer["kind"] == "done":
            self._end()
        return answer

    def block(self) -> Block:
        """Return the timing of the next block.

        Raises:
            SideError: it ended, or its step raised.
        """
        return msgspec.convert(self._ask("block")["block"], Block)

    def _ask(self, request: str) -> dict[str, Any]:
        try:
            self._line.send(request)
            while (answer := self._line.receive(_PATIENCE_S))["kind"] == "progress":
                if self._progress is not None:
                    self._progress(answer["done"], answer["of"])
        except TimeoutError:
            raise SideError(self._side.name, f"gave no answer for {_PATIENCE_S:g} s") from None
        except LineClosedError:
            raise SideError(self._side.name, f"ended with {_ending(self._end())}") from None
        if answer["kind"] == "failed":
            self._end()
            raise SideError(self._side.name, answer["reason"])
        return answer

    def _end(self) -> int:
        self._works = False
        return self._side.ended(self.pid)


_NOT_INHERITED = ("PYTEST_ADDOPTS", "PYTEST_CURRENT_TEST", "PYTHONHOME")


def end_group(leader: int) -> None:
    """Kill a process group, if there is any left of it."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    hint = ", as a process does that takes more memory than there is" * (code == -signal.SIGKILL)
    return f"{signal.Signals(-code).name}{hint}"
