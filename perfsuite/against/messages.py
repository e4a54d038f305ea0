"""Messages between the processes of a comparison: a JSON object a line, over a socket.

Not pickles: the other end may be another version of everything.

| from        | to          | message     | when                                                |
| ----------- | ----------- | ----------- | --------------------------------------------------- |
| coordinator | server      | `Setup`     | first; `worker/bootstrap.py` reads it as plain JSON |
| server      | coordinator | `Collected` | all benchmarks are imported                         |
| coordinator | server      | `Start`     | a worker is wanted; brings the worker's own socket  |
| server      | coordinator | `Started`   | the worker is forked                                |
| coordinator | server      | `Wait`      | a worker has ended, or was killed                   |
| server      | coordinator | `Ended`     | that worker is gone                                 |
| coordinator | worker      | `Go`        | run on, to the next block to be timed or to the end |
| worker      | coordinator | `Progress`  | at any time while it runs                           |
| worker      | coordinator | `Ready`     | a block can be timed                                |
| coordinator | worker      | `TakeBlock` | after `Ready`, as often as blocks are wanted        |
| worker      | coordinator | `Timed`     | one answer to each `TakeBlock`                      |
| worker      | coordinator | `Done`      | the benchmark has run                               |
| both        | coordinator | `Failed`    | in place of any answer; nothing follows it          |
"""

import socket
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from perfsuite.judging.blocks import Block

PROTOCOL = 2
"""Version of the messages; both ends must speak the same."""

_CHUNK_BYTES = 1 << 16


class _Message(msgspec.Struct, frozen=True, kw_only=True, tag=str.lower):
    """Its tag, the field "type" of the JSON, is the class's name in lower case."""


class Setup(_Message, frozen=True, kw_only=True):
    """What a server needs to know before anything is imported.

    Attributes:
        protocol: the coordinator's PROTOCOL.
        side: "before" or "after".
        top: the working tree.
        checkout: the tree of the code before, None if both sides run the working tree.
        suite: the benchmarks, relative to either tree.
        suite_folder: the benchmarks of this side.
        working_folder_first: whether the working folder comes first in sys.path, as under
            `python -m pytest`.
        perfsuite: the folder of the perfsuite that both sides use; None if each uses its own.
        arguments: of the server's pytest.
    """

    protocol: int = PROTOCOL
    side: str
    top: str
    checkout: str | None
    suite: str
    suite_folder: str
    working_folder_first: bool
    perfsuite: str | None
    arguments: list[str]


class Start(_Message, frozen=True, kw_only=True):
    """Fork a worker for restart number `index` of the benchmark `key`."""

    key: str
    index: int


class Wait(_Message, frozen=True, kw_only=True):
    """Wait for the end of a worker."""

    pid: int


class Go(_Message, frozen=True, kw_only=True):
    """Run on; `explain` lets the worker profile what it has timed."""

    explain: bool = False


class TakeBlock(_Message, frozen=True, kw_only=True):
    """Time a block."""


class Collected(_Message, frozen=True, kw_only=True):
    """What a side has.

    Attributes:
        items: the names of each benchmark's markers, by key.
        errors: why a file could not be collected, by its path in the suite.
        prefix: of the interpreter.
        hardware: what it runs on, as in a run's JSON.
        software: versions.
        loaded: packages imported, by where they came from (`import_paths.Trees.loaded`).
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


class Started(_Message, frozen=True, kw_only=True):
    """The worker's process, which leads a process group of its own."""

    pid: int


class Ended(_Message, frozen=True, kw_only=True):
    """A worker's exit code, or minus the signal that ended it."""

    code: int


class Progress(_Message, frozen=True, kw_only=True):
    """`done` of `of` parts of `what` are done."""

    what: str
    done: int
    of: int


class Ready(_Message, frozen=True, kw_only=True):
    """The worker can time blocks of `what`."""

    what: str


class Timed(_Message, frozen=True, kw_only=True):
    """A block was timed."""

    block: Block


class Done(_Message, frozen=True, kw_only=True):
    """The benchmark's record as in a run's JSON, and the packages imported (`Collected`)."""

    record: dict[str, Any]
    loaded: dict[str, list[str]]


class Failed(_Message, frozen=True, kw_only=True):
    """Why there is no other answer, in one line."""

    reason: str


Request = Setup | Start | Wait | Go | TakeBlock
Answer = Collected | Started | Ended | Progress | Ready | Timed | Done | Failed
REQUESTS: msgspec.json.Decoder[Request] = msgspec.json.Decoder(Request)
ANSWERS: msgspec.json.Decoder[Answer] = msgspec.json.Decoder(Answer)

Received = TypeVar("Received")


class LineClosedError(ConnectionError):
    """The other end has gone."""


class MessageError(ValueError):
    """The other end sent what is no message, or none of those that may come."""


class Line(Generic[Received]):
    """One end of a stream of messages.

    Args:
        descriptor: of the socket; it is this object's from now on.
        decoder: of the messages that may come: REQUESTS or ANSWERS.
    """

    def __init__(self, descriptor: int, decoder: "msgspec.json.Decoder[Received]") -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._decoder = decoder
        self._unread = b""
        self._descriptors: list[int] = []

    def send(self, message: Request | Answer, *, share: int | None = None) -> None:
        """Send a message; NaN and infinity, which JSON has not, become null.

        Args:
            message: what to send.
            share: an open file that the other end is to share (`shared`).

        Raises:
            LineClosedError: the other end has gone.
        """
        encoded = msgspec.json.encode(message, enc_hook=repr) + b"\n"
        try:
            if share is not None:
                sent = socket.send_fds(self._socket, [encoded], [share])
                encoded = encoded[sent:]
            self._socket.sendall(encoded)
        except OSError as error:
            raise LineClosedError(str(error)) from None

    def receive(self, timeout_s: float | None = None) -> Received:
        """Return the next message; without a timeout, wait for as long as it takes.

        Raises:
            TimeoutError: nothing came for so long.
            LineClosedError: the other end has gone.
            MessageError: what came is none of the messages that may come.
        """
        self._socket.settimeout(timeout_s)
        chunks = [self._unread]
        while b"\n" not in chunks[-1]:
            try:
                chunk, descriptors, _, _ = socket.recv_fds(self._socket, _CHUNK_BYTES, 1)
            except ConnectionError as error:
                raise LineClosedError(str(error)) from None
            finally:
                self._unread = b"".join(chunks)
            if not chunk:
                raise LineClosedError("the other end has hung up")
            self._descriptors += descriptors
            chunks.append(chunk)
        line, _, self._unread = b"".join(chunks).partition(b"\n")
        self._socket.settimeout(None)
        try:
            return self._decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise MessageError(f"{error}: {line[:80]!r}") from None

    def shared(self) -> int:
        """Return the open file that came with the last message."""
        return self._descriptors.pop()

    def close(self) -> None:
        """Hang up."""
        self._socket.close()
