"""Messages between processes: JSON objects over a socket that one end was born with.

Not pickles: the other end may be another version of everything.
"""

from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle
from typing import Any

import msgspec

__all__ = ["PROTOCOL", "Line", "LineClosedError"]

PROTOCOL = 1
"""Version of the messages; both ends must speak the same."""


class LineClosedError(ConnectionError):
    """The other end has gone."""


class Line:
    """One end of a socket.

    Args:
        descriptor: of the socket; it is this object's from now on.
    """

    def __init__(self, descriptor: int) -> None:
        self._pipe = Connection(descriptor)

    def send(self, kind: str, **content: Any) -> None:
        """Send a message; NaN and infinity, which JSON has not, become null.

        Raises:
            LineClosedError: the other end has gone.
        """
        try:
            self._pipe.send_bytes(msgspec.json.encode({"kind": kind, **content}, enc_hook=repr))
        except OSError as error:
            raise LineClosedError(str(error)) from None

    def receive(self, patience_s: float | None = None) -> dict[str, Any]:
        """Return the next message, with its "kind".

        Args:
            patience_s: how long to wait for it; as long as it takes where there is none.

        Raises:
            TimeoutError: nothing came in that time.
            LineClosedError: the other end has gone.
        """
        try:
            if not self._pipe.poll(patience_s):
                raise TimeoutError
            message: dict[str, Any] = msgspec.json.decode(self._pipe.recv_bytes())
        except (EOFError, ConnectionError) as error:
            raise LineClosedError(str(error)) from None
        return message

    def send_descriptor(self, descriptor: int) -> None:
        """Let the other end share an open file.

        Raises:
            LineClosedError: the other end has gone.
        """
        try:
            send_handle(self._pipe, descriptor, None)
        except OSError as error:
            raise LineClosedError(str(error)) from None

    def receive_descriptor(self) -> int:
        """Return the open file that the other end shares."""
        return recv_handle(self._pipe)

    def close(self) -> None:
        """Hang up."""
        self._pipe.close()
