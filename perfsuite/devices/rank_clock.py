"""Clock and sensor of all ranks at once: a block takes as long as the slowest of them."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from perfsuite.devices.device import Clock, Sensor
from perfsuite.devices.ranks import Ranks
from perfsuite.judging.blocks import State

MOST_NAMED = 4
"""Ranks that are named where the same held them back in one block; of more it is how many."""


class RankClock(Clock):
    """The clock of all ranks: it starts when all have come, and shows what the slowest one took."""

    def __init__(self, own: Clock, ranks: Ranks) -> None:
        self._own, self._ranks = own, ranks
        self._laps_s: list[float] = []
        self._host_s: float | None = None
        self._ranks_s: tuple[float, ...] = ()

    def start(self) -> None:
        self._own.start()  # the device is idle before they meet, or one would wait for another's
        self._ranks.meet()
        self._own.start()

    def taking(self, step: Callable[[Any], Any]) -> AbstractContextManager[Callable[[Any], Any]]:
        return self._own.taking(step)

    def lap(self) -> None:
        self._own.lap()

    def stop(self) -> tuple[float, float | None]:
        wall_s, device_s = self._own.stop()
        own = wall_s, device_s, self._own.laps_s(), self._own.host_s()
        told = self._ranks.numbers(wall_s if device_s is None else device_s)
        self._ranks_s = tuple(own_s for (own_s,) in told)
        # All of it is one rank's, so that its parts go together.
        slowest = self._ranks_s.index(max(self._ranks_s))
        wall_s, device_s, self._laps_s, self._host_s = self._ranks.agreed(own, of=slowest)
        return wall_s, device_s

    def laps_s(self) -> list[float]:
        return self._laps_s

    def host_s(self) -> float | None:
        return self._host_s

    def ranks_s(self) -> tuple[float, ...]:
        return self._ranks_s


class RankSensor:
    """The sensor of all ranks: the state is this rank's own, what held a device back, any's."""

    def __init__(self, own: Sensor, ranks: Ranks) -> None:
        self._own, self._ranks = own, ranks

    def read(self) -> State:
        return self._own.read()

    def blind(self) -> str | None:
        return self._own.blind()

    def held_back(self, before: State, after: State) -> tuple[str, ...]:
        own = self._own.held_back(before, after)
        if not any(number for (number,) in self._ranks.numbers(len(own))):
            return ()
        # All have to know: they decide by it how long they go on.
        found: dict[str, list[int]] = {}
        for rank, told in enumerate(self._ranks.each(own)):
            for reason in told:
                found.setdefault(reason, []).append(rank)
        return tuple(said for reason, of in found.items() for said in _named(reason, of))


def _named(reason: str, of: list[int]) -> list[str]:
    """Return what held devices back with each rank of which it did, or with how many they are."""
    if len(of) > MOST_NAMED:
        return [f"{reason} ({len(of)} ranks)"]
    return [f"{reason} (rank {rank})" for rank in of]
