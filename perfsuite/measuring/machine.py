"""The machine that a session runs on: device, hardware, software, and what it can do."""

from dataclasses import dataclass
from typing import Any

import torch

from perfsuite.devices.device import Hardware, choose_device, hardware, software
from perfsuite.devices.precision import Precision, supported
from perfsuite.training.data import Digits, load_digits
from perfsuite.training.workload import WORKLOADS, Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What a session runs on; the same for all its benchmarks."""

    device: torch.device
    hardware: Hardware
    software: dict[str, Any]
    precisions: tuple[Precision, ...]
    default_workload: Workload

    @property
    def amp(self) -> tuple[Precision, ...]:
        """The mixed precisions that the device can do."""
        return tuple(precision for precision in self.precisions if precision.is_amp)

    @property
    def references(self) -> tuple[Precision, ...]:
        """The precisions that mixed precision is held against."""
        return tuple(precision for precision in self.precisions if not precision.is_amp)

    def load(self, source: str) -> Digits:
        """Return digits on the device; raises DataError."""
        return load_digits(source, self.device)


def machine(wanted: str, workload: str | None) -> Machine:
    """Return the machine for "auto", "cuda" or "cpu", and a preset's name or its own choice.

    Raises:
        DeviceError: CUDA was asked for and there is none.
    """
    device = choose_device(wanted)
    name = workload or ("tutorial" if device.type == "cuda" else "tiny")
    return Machine(
        device=device,
        hardware=hardware(device),
        software=software(device),
        precisions=supported(device),
        default_workload=WORKLOADS[name],
    )
