"""Reads a simulated device's state, as a driver's tools read a real one's."""

from typing import Protocol

from perfsuite.devices.cards import Card
from perfsuite.judging.blocks import State

_HELD_BACK = 1  # the bit of `State.clock_event_reasons` that says so


class _Watched(Protocol):
    card: Card
    now_s: float

    def mhz(self, at_s: float) -> float: ...


class SimulatedSensor:
    """Reads a simulated device; a spell of throttling shows in the first reading after it began."""

    def __init__(self, device: _Watched) -> None:
        self._device = device
        self._read_s = device.now_s

    def read(self) -> State:
        device, card = self._device, self._device.card
        since_s, self._read_s = self._read_s, device.now_s
        held = any(each.within(since_s, device.now_s) for each in card.held_back)
        beside = sum(each.at(device.now_s) for each in card.neighbours)
        return State(
            sm_mhz=round(device.mhz(device.now_s)),
            clock_event_reasons=_HELD_BACK * held,
            other_processes=beside,
        )

    def blind(self) -> str | None:
        return None

    def held_back(self, before: State, after: State) -> tuple[str, ...]:  # noqa: ARG002  # told once
        return ("simulated slowdown",) if after.clock_event_reasons else ()
