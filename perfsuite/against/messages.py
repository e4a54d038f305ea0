"""Messages between processes: a JSON object a line, over a socket that both ends were born with.

Not pickles: the other end may be another version of everything.
"""

import socket
from typing import Any

import msgspec

PROTOCOL = 1
"""Version of the messages; both ends must speak the same."""

_CHUNK_BYTES = 1 << 16


class LineClosedError(ConnectionError):
    """The other end has gone."""


class Line:
    """One end of a stream of messages.

    Args:
        descriptor: of the socket; it is this object's from now on.
    """

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._unread = b""
        self._descriptors: list[int] = []

    def send(self, kind: str, *, share: int | None = None, **content: Any) -> None:
        """Send a message; NaN and infinity, which JSON has not, become null.

        Args:
            kind: what it is.
            share: an open file that the other end is to share (`shared`).
            content: whatever else it says.

        Raises:
            LineClosedError: the other end has gone.
        """
        message = msgspec.json.encode({"kind": kind, **content}, enc_hook=repr) + b"\n"
        try:
            if share is not None:
                sent = socket.send_fds(self._socket, [message], [share])
                message = message[sent:]
            self._socket.sendall(message)
        except OSError as error:
            raise LineClosedError(str(error)) from None

    def receive(self, patience_s: float | None = None, *, shares: bool = False) -> dict[str, Any]:
        """Return the next message, with its "kind".

        Args:
            patience_s: how long to wait for the other end to say something; as long as it
                takes where there is none.
            shares: whether an open file may come with it.

        Raises:
            TimeoutError: nothing came in that time.
            LineClosedError: the other end has gone.
        """
        self._socket.settimeout(patience_s)
        chunks = [self._unread]
        while b"\n" not in chunks[-1]:
            try:
                if shares:
                    chunk, descriptors, _, _ = socket.recv_fds(self._socket, _CHUNK_BYTES, 1)
                    self._descriptors += descriptors
                else:
                    chunk = self._socket.recv(_CHUNK_BYTES)
            except ConnectionError as error:
                raise LineClosedError(str(error)) from None
            finally:
                self._unread = b"".join(chunks)
            if not chunk:
                raise LineClosedError("the other end has hung up")
            chunks.append(chunk)
        message, _, self._unread = b"".join(chunks).partition(b"\n")
        self._socket.settimeout(None)
        decoded: dict[str, Any] = msgspec.json.decode(message)
        return decoded

    def shared(self) -> int:
        """Return the open file that came with the last message."""
        return self._descriptors.pop()

    def close(self) -> None:
        """Hang up."""
        self._socket.close()
