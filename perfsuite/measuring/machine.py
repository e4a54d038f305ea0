"""The machine that a session runs on: device, hardware, software, and what it can do."""

from dataclasses import dataclass, field
from typing import Any

from perfsuite.devices.choice import choose_device
from perfsuite.devices.device import Device, Hardware
from perfsuite.devices.precision import Precision


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What a session runs on; the same for all its benchmarks."""

    device: Device
    hardware: Hardware
    software: dict[str, Any]
    precisions: tuple[Precision, ...]
    facts: dict[str, Any] = field(default_factory=dict)  # what decides its speed, besides

    @property
    def amp(self) -> tuple[Precision, ...]:
        """The mixed precisions that the device can do."""
        return tuple(precision for precision in self.precisions if precision.is_amp)

    @property
    def references(self) -> tuple[Precision, ...]:
        """The precisions that mixed precision is held against."""
        return tuple(precision for precision in self.precisions if not precision.is_amp)


def machine(wanted: str) -> Machine:
    """Return the machine with "auto" or a kind of device; DeviceError if that is not there."""
    device = choose_device(wanted)
    return Machine(
        device=device,
        hardware=device.hardware(),
        software=device.software(),
        precisions=device.precisions,
        facts=device.facts(),
    )
