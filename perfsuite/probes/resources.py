"""Probes of what a step costs beside its arithmetic: waits for the device, and lost memory."""

import gc
from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from perfsuite.devices.choice import device_of
from perfsuite.devices.device import HOST, HostWaitError
from perfsuite.devices.precision import Precision
from perfsuite.judging.gates import Verdict
from perfsuite.probes.probe import Batch, ProbedStep, StepFactory, verdict

_WARM_UP, _MEASURED = 3, 4


class HostReads(TorchDispatchMode):
    """Counts, while entered, each ``.item()``, ``float(tensor)`` and ``if tensor`` on a device.

    `apart_from` are tensors that may be read, as those that are meant for the host.
    """

    def __init__(self, device: torch.device, *, apart_from: Iterable[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's
        self.count = 0
        self._device = device.type
        self._free = {tensor.data_ptr() for tensor in apart_from}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Hand the call through, and count it if it fetches a value."""
        del types  # part of torch's signature
        if func is torch.ops.aten._local_scalar_dense.default:
            (tensor,) = args
            counts = tensor.device.type == self._device and tensor.data_ptr() not in self._free
            self.count += counts
        return func(*args, **(kwargs or {}))


def host_waits(make_step: StepFactory, precision: Precision, batch: Batch) -> Verdict:
    """A step must not fetch a value to the host, which makes it wait for the device.

    ``item()``, ``float(tensor)`` and ``if tensor`` are seen on any device, copies to the host
    on CUDA only, where they are more than a look at the same memory.
    """
    step = make_step(precision)
    step(*batch)  # the first may set up what the others use
    # An optimizer that is not fused keeps its counts of steps on the host, and reads them there.
    # Where the device is the host too, they are told apart by being those counts.
    counters = [state["step"] for state in step.optimizer.state.values() if "step" in state]
    counters = [c for c in counters if isinstance(c, Tensor) and c.device == HOST]
    place = batch[0].device
    try:
        with device_of(place).host_waits_raise(), HostReads(place, apart_from=counters) as reads:
            step(*batch)
        waits = f"{reads.count} fetched" if reads.count else ""
    except HostWaitError as error:
        waits = str(error)
    return verdict(
        "host_waits",
        f"the step waits for the device: {waits}" if waits else "no value is fetched",
        "a step that brings no value to the host",
        good=not waits,
        remedy="keep losses on the device, and use a fused optimizer under a GradScaler",
    )


def memory_slope(make_step: StepFactory, precision: Precision, batch: Batch) -> Verdict:
    """Memory must not grow from step to step, by not a single byte.

    The tolerance is zero because a healthy step, once warm, frees exactly what it allocates.
    What only waits for the garbage collector does not count. Counted are all of the allocator's
    bytes on the batch's device, whoever keeps them.
    """
    made: list[ProbedStep] = []

    def take(steps: int) -> None:
        if not made:  # in the warm-up, whose allocations are watched
            made.append(make_step(precision))
        for _ in range(steps):
            made[0](*batch)
        gc.collect()

    device = device_of(batch[0].device)
    grown = device.growth_bytes(partial(take, _WARM_UP), partial(take, _MEASURED))
    return verdict(
        "memory_slope",
        f"memory grows by {grown / _MEASURED:,.0f} bytes a step"
        if grown > 0
        else "memory is steady",
        "a step that frees what it allocates",
        good=grown <= 0,
        remedy="keep losses out of lists, and leave autocast in every step: it keeps its casts"
        " of the weights until then",
    )
