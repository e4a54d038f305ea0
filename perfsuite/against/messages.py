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
| coordinator | worker      | `Try`       | after `Ready`, once: a batch is to be tried         |
| worker      | coordinator | `TriedOut`  | the answer to it                                    |
| coordinator | worker      | `TakeBlock` | after `Ready`, as often as blocks are wanted        |
| worker      | coordinator | `Timed`     | one answer to each `TakeBlock`                      |
| worker      | coordinator | `Done`      | the benchmark has run                               |
| both        | coordinator | `Failed`    | in place of any answer; nothing follows it          |

A worker of several ranks is a process each: what is sent to it, rank 0 receives and hands on, and
rank 0 answers; but any of them may send `Failed`.
"""

import socket
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from perfsuite.judging.blocks import Block
from perfsuite.judging.fitting import Attempt, Tried

PROTOCOL = 3  # the version of the messages, which both ends must speak


class _Message(msgspec.Struct, frozen=True, kw_only=True, tag=str.lower):
    """Its tag, the field "type" of the JSON, is the class's name in lower case."""


class Setup(_Message, frozen=True, kw_only=True):
    protocol: int = PROTOCOL
    side: str  # "before" or "after"
    top: str  # the working tree
    checkout: str | None  # the tree of the code before; None if both sides run the working tree
    suite: str | None  # the benchmarks of both sides, relative to either tree; None: each its own
    suite_folder: str  # the benchmarks of this side
    working_folder_first: bool  # in sys.path, as under `python -m pytest`
    perfsuite: str | None  # the folder of both sides' perfsuite; None if each uses its own
    ranks: int  # of a worker
    arguments: list[str]  # of the server's pytest


class Start(_Message, frozen=True, kw_only=True):
    key: str
    index: int  # of the restart
    config: dict[str, Any] = {}  # what it measures is as it was in that, as in a run's JSON


class Wait(_Message, frozen=True, kw_only=True):
    pid: int


class Go(_Message, frozen=True, kw_only=True):
    explain: bool = False  # whether it is to profile what it has timed


class TakeBlock(_Message, frozen=True, kw_only=True):
    pass


class Try(_Message, frozen=True, kw_only=True):
    attempt: Attempt


class TriedOut(_Message, frozen=True, kw_only=True):
    tried: Tried


class Collected(_Message, frozen=True, kw_only=True):
    items: dict[str, list[str]]  # the names of each benchmark's markers, by key
    errors: dict[str, str]  # why a file could not be collected, by its path in the suite
    prefix: str  # of the interpreter
    hardware: dict[str, Any]  # as in a run's JSON, like `software`
    software: dict[str, Any]
    loaded: dict[str, list[str]]  # `import_paths.Trees.loaded`

    def why_not(self, file: str) -> str | None:
        """Return why a file of the suite, or a folder it lies in, was not collected."""
        places = [file, *(parent.as_posix() for parent in Path(file).parents)]
        return next((self.errors[place] for place in places if place in self.errors), None)


class Started(_Message, frozen=True, kw_only=True):
    pid: int  # of the worker, or its rank 0, which leads a process group of its own


class Ended(_Message, frozen=True, kw_only=True):
    code: int  # of its exit, or minus the signal that ended it; 0 where it had told why it failed
    rank: int = 0  # whose code that is: of those that did not end well, the first


class Progress(_Message, frozen=True, kw_only=True):
    what: str
    done: int
    of: int  # how many parts there are to be done


class Ready(_Message, frozen=True, kw_only=True):
    what: str  # a block would be of


class Timed(_Message, frozen=True, kw_only=True):
    block: Block


class Done(_Message, frozen=True, kw_only=True):
    record: dict[str, Any]  # the benchmark's, as in a run's JSON
    loaded: dict[str, list[str]]  # as in `Collected`


class Failed(_Message, frozen=True, kw_only=True):
    reason: str  # in one line


Request = Setup | Start | Wait | Go | TakeBlock | Try
Answer = Collected | Started | Ended | Progress | Ready | Timed | TriedOut | Done | Failed
REQUESTS: msgspec.json.Decoder[Request] = msgspec.json.Decoder(Request)
ANSWERS: msgspec.json.Decoder[Answer] = msgspec.json.Decoder(Answer)

Received = TypeVar("Received")


class LineClosedError(ConnectionError):
    """The other end has gone."""


class MessageError(ValueError):
    """The other end sent what is no message, or none of those that may come."""


class Line(Generic[Received]):
    """One end of a stream of messages; it owns the socket, and decodes REQUESTS or ANSWERS."""

    def __init__(self, descriptor: int, decoder: "msgspec.json.Decoder[Received]") -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._decoder = decoder
        self._unread = b""
        self._descriptors: list[int] = []

    def send(self, message: Request | Answer, *, share: int | None = None) -> None:
        """Send a message, NaN as null, with an open file to `share`; raises LineClosedError."""
        encoded = msgspec.json.encode(message, enc_hook=repr) + b"\n"
        try:
            if share is not None:
                sent = socket.send_fds(self._socket, [encoded], [share])
                encoded = encoded[sent:]
            self._socket.sendall(encoded)
        except OSError as error:
            raise LineClosedError(str(error)) from None

    def receive(self, timeout_s: float | None = None) -> Received:
        """Return the next message; raises TimeoutError, LineClosedError or MessageError."""
        if self._socket.fileno() < 0:
            raise LineClosedError("this end has hung up")
        self._socket.settimeout(timeout_s)
        chunks = [self._unread]
        while b"\n" not in chunks[-1]:
            try:
                chunk, descriptors, _, _ = socket.recv_fds(self._socket, 1 << 16, 1)
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
        """Close the line: what the other end waits for ends as well."""
        self._socket.close()
