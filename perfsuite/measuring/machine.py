"""The machine that a session runs on: device, hardware, software, and what it can do."""

import os
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from perfsuite.devices.choice import KINDS, SIMULATED, choose_device, device_of
from perfsuite.devices.device import Clock, Device, Hardware, Sensor
from perfsuite.devices.host import CpuUse
from perfsuite.devices.precision import Precision
from perfsuite.devices.rank_clock import RankClock, RankSensor
from perfsuite.devices.rank_facts import shared_facts, talk
from perfsuite.devices.ranks import Ranks, join, leave
from perfsuite.devices.torchrun import RankError, Seat, seat
from perfsuite.records.wording import counted


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What a session runs on; the same for all its benchmarks."""

    device: Device
    hardware: Hardware
    software: dict[str, Any]
    precisions: tuple[Precision, ...]
    facts: dict[str, Any] = field(default_factory=dict)  # what decides its speed, besides
    ranks: Ranks = field(default_factory=Ranks)  # that measure together

    @property
    def amp(self) -> tuple[Precision, ...]:
        """The mixed precisions that the device can do."""
        return tuple(precision for precision in self.precisions if precision.is_amp)

    def clock(self) -> Clock:
        """Return what measures the device, of the slowest rank where there are several."""
        own = self.device.clock()
        return RankClock(own, self.ranks) if self.ranks.many else own

    def sensor(self) -> Sensor:
        """Return what reads the device's state, and of all ranks what held it back."""
        own = self.device.sensor()
        return RankSensor(own, self.ranks) if self.ranks.many else own

    def time_s(self) -> float:
        """Return the time of which budgets are: rank 0's, so that all end together."""
        return self.ranks.agreed(self.device.time_s())

    def others_cpu(self, before: CpuUse | None, now: CpuUse | None) -> float | None:
        """Return the share of the CPUs that others than our ranks used between two readings."""
        own_s = 0.0 if now is None or before is None else now.own_s - before.own_s
        beside_s = sum(self.ranks.of_this_node(own_s)) - own_s  # by all ranks, whatever they know
        return None if now is None or before is None else now.others_since(before, beside_s)

    @property
    def references(self) -> tuple[Precision, ...]:
        """The precisions that mixed precision is held against."""
        return tuple(precision for precision in self.precisions if not precision.is_amp)

    def among(self, ranks: Ranks) -> "Machine":
        """Return it as that of one of these ranks, with what all of them share.

        Raises:
            RankError: they are on unlike machines, and have left each other.
        """
        if not ranks.many:
            return self
        required = {"hardware": self.hardware.key, "CPU": self.facts.get("CPU"), **self.software}
        try:
            facts = shared_facts(ranks, alike=required, facts=self.facts)
        except RankError:
            leave()
            raise
        return replace(self, software=self.software | talk(), facts=facts, ranks=ranks)


def machine(wanted: str) -> Machine:
    """Return the machine with "auto" or a kind of device, and join its ranks, if there are any.

    Raises:
        DeviceError: it is not there.
        RankError: the ranks cannot work together, or are on unlike machines.
    """
    at = seat()
    found = machine_at(wanted, at)
    return found.among(join(found.device, at))


def machine_at(wanted: str, at: Seat) -> Machine:
    """Return the machine as the rank at a seat finds it, which has not joined the others yet.

    Raises:
        DeviceError: the device is not there.
        RankError: the rank has none of its own.
    """
    if at.ranks > 1:
        _take_own_accelerator(wanted, at)
    device = choose_device(wanted)
    return Machine(
        device=device,
        hardware=device.hardware().of_ranks(at.nodes, at.local_ranks if at.ranks > 1 else 0),
        software=device.software(),
        precisions=device.precisions,
        facts=device.facts(),
    )


def machine_of_fork(found: Machine, wanted: str, at: Seat, store: Any) -> Machine:
    """Return the machine of a rank that was forked from a process which knows it; join the others.

    They meet by way of `store`, a `torch.distributed.Store`. Raises RankError.
    """
    _take_own_accelerator(wanted, at)
    device = found.device
    if device.computes_on_host:
        torch.set_num_threads(found.software["threads"])
    else:
        device = device_of(torch.device(device.place.type, at.local_rank))
    return replace(found, device=device, ranks=join(device, at, store))


def _take_own_accelerator(wanted: str, at: Seat) -> None:
    """Make the accelerator of this rank's number the current one, where there are any."""
    if wanted.startswith(SIMULATED):
        raise RankError(f"--perf-device {wanted}: a simulated device has one rank")
    kind = torch.accelerator.current_accelerator(check_available=True)
    if wanted == "cpu" or kind is None or kind.type not in KINDS:
        return
    count = torch.accelerator.device_count()
    if count == 1 and "SLURM_LOCALID" in os.environ:  # srun lets each task see its own alone
        return
    if at.local_ranks > count:  # each of them says so
        raise RankError(
            f"each of {at.local_ranks} ranks of a node needs a device of its own, and it has"
            f" {counted(count, 'device')}: start no more than that, or give --perf-device cpu"
        )
    torch.accelerator.set_device_index(at.local_rank)
