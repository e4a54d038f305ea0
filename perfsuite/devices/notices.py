"""Where ranks leave notices for each other: a store that rank 0 keeps, beside all collectives."""

import os
import socket
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from perfsuite.devices.ranks import Ranks

_TCPStore: Any = dist.TCPStore  # type: ignore[attr-defined]  # public, by its documentation
_ANSWER = timedelta(seconds=10)  # of a store that is there
_LOOK_S, _LOOK_AT_MOST_S = 0.001, 0.1  # between two looks; each takes longer than the one before


class Notices:
    """A connection to the store; a thread has its own, since one waits for an answer at a time."""

    def __init__(self, host: str, port: int, kept: Any = None) -> None:
        self._address = host, port
        self._kept = kept  # on rank 0: it ends with its last reference
        self._store = _TCPStore(host, port, timeout=_ANSWER)

    def another(self) -> "Notices":
        """Return another connection to the same store."""
        return Notices(*self._address, self._kept)

    def post(self, name: str, text: str) -> None:
        """Leave a notice in the place of what stood there."""
        self._store.set(name, text)

    def read(self, names: Sequence[str]) -> list[bytes]:
        """Return notices, all of which are there."""
        return list(self._store.multi_get(list(names)))

    def look(self, name: str) -> str | None:
        """Return a notice, None if it is not there."""
        return self._store.get(name).decode() if self._store.check([name]) else None

    def claim(self, name: str, text: str) -> bool:
        """Leave a notice where there is none; tell whether that was so."""
        return bool(self._store.compare_set(name, "", text).decode() == text)

    def come(self, name: str) -> int:
        """Say that one more has come; return how many have."""
        return int(self._store.add(name, 1))

    def gather(self, name: str, ranks: int) -> None:
        """Wait until so many have come."""
        if self.come(name) == ranks:
            self.post(f"{name}: all", "")
        look_s = _LOOK_S
        while self.look(f"{name}: all") is None:
            time.sleep(look_s)
            look_s = min(1.5 * look_s, _LOOK_AT_MOST_S)


def notices(ranks: Ranks) -> Notices:
    """Return a connection to a store that rank 0 opens on a free port; called by all of them."""
    host = os.environ.get("MASTER_ADDR") or socket.gethostname()  # where rank 0 is
    kept = None
    if ranks.seat.leads:
        kept = _TCPStore(host, 0, is_master=True, wait_for_workers=False)
    return Notices(*ranks.agreed((host, 0 if kept is None else kept.port)), kept)


def collectives_started(group: Any = None) -> int:
    """Return how many collectives this process started in a group; 0 if it is not told.

    It is the default group unless another is given.

    Read from what torch counts to tell ranks apart that got out of step.
    """
    try:
        group = dist.group.WORLD if group is None else group
        return int(group._get_sequence_number_for_group())
    except (AttributeError, RuntimeError):  # by version and backend
        return 0
