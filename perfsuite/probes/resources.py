"""Probes of what a step costs beside its arithmetic: waits for the device, and lost memory."""

import gc
import math
from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from perfsuite.devices.choice import device_of
from perfsuite.devices.device import HOST, HostWaitError
from perfsuite.devices.precision import Precision
from perfsuite.devices.ranks import ranks
from perfsuite.measuring.sites import line_of_source
from perfsuite.probes.probe import Found, MakeArm, probe, told_by_all
from perfsuite.training.arm import Arm, NotShownError
from perfsuite.training.batches import named_tensors
from perfsuite.training.snapshot import difference, state_difference, states_of

_WARM_UP, _MEASURED = 3, 4
_ALIKE = 2  # batches that are compared
_AGREEING = 3  # steps that have to agree
_TOLERANCE = 1e-3  # some kernels of a GPU add in another order each time


class HostReads(TorchDispatchMode):
    """Counts, while entered, each ``.item()``, ``float(tensor)`` and ``if tensor`` on a device.

    `apart_from` are tensors that may be read, as those that are meant for the host.
    """

    def __init__(self, device: torch.device, *, apart_from: Iterable[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's
        self.count = 0
        self.first = ""  # by which file and line one was fetched
        self._device = device.type
        self._free = {tensor.data_ptr() for tensor in apart_from}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Hand the call through, and count it if it fetches a value."""
        del types  # part of torch's signature
        if func is torch.ops.aten._local_scalar_dense.default:
            (tensor,) = args
            counts = tensor.device.type == self._device and tensor.data_ptr() not in self._free
            if counts and not self.count:
                self.first, _, _ = (line_of_source() or "the backward pass").partition(": ")
            self.count += counts
        return func(*args, **(kwargs or {}))


@probe(
    wanted="a step that brings no value to the host",
    remedy="keep losses on the device, and use a fused optimizer under a GradScaler",
)
def host_waits(make: MakeArm, precision: Precision, batch: Any) -> Found:
    """A step must not fetch a value to the host, which makes it wait for the device.

    ``item()``, ``float(tensor)`` and ``if tensor`` are seen on any device; copies to the host,
    and the synchronisation of a device, a stream or an event on CUDA only, where they wait.
    """
    arm = make(precision)
    arm.step(batch)  # the first may set up what the others use
    # An optimizer that is not fused keeps its counts of steps on the host, and reads them there.
    # Where the device is the host too, they are told apart by being those counts.
    states = [state for optimizer in _optimizers(arm) for state in optimizer.state.values()]
    counters = [state["step"] for state in states if "step" in state]
    counters = [c for c in counters if isinstance(c, Tensor) and c.device == HOST]
    try:
        with (
            device_of(arm.device).host_waits_raise(),
            HostReads(arm.device, apart_from=counters) as reads,
        ):
            arm.step(batch)
        first = ", the first" * (reads.count > 1)
        waits = f"{reads.count} fetched{first} by {reads.first}" if reads.count else ""
    except HostWaitError as error:
        waits = str(error)
    return Found(
        f"the step waits for the device: {waits}" if waits else "no value is fetched",
        good=not waits,
    )


def _optimizers(arm: Arm) -> list[torch.optim.Optimizer]:
    try:
        return arm.optimizers
    except NotShownError:
        return []


@probe(
    wanted="a step that frees what it allocates",
    remedy="keep losses out of lists, and leave autocast in every step: it keeps its casts"
    " of the weights until then",
)
def memory_slope(make: MakeArm, precision: Precision, batch: Any) -> Found:
    """Memory must not grow from step to step, by not a single byte.

    The tolerance is zero because a healthy step, once warm, frees exactly what it allocates.
    What only waits for the garbage collector does not count. Counted are all of the allocator's
    bytes on the device, whoever keeps them.
    """
    made: list[Arm] = []

    def take(steps: int) -> None:
        if not made:  # in the warm-up, whose allocations are watched
            made.append(make(precision))
        for _ in range(steps):
            made[0].step(batch)
        gc.collect()

    place = next((tensor.device for _, tensor in named_tensors(batch)), HOST)
    if ranks().many and device_of(place).computes_on_host:
        raise NotShownError(
            "ranks on a CPU free memory on threads that its count does not see: look at one rank"
        )
    grown = device_of(place).growth_bytes(partial(take, _WARM_UP), partial(take, _MEASURED))
    steady = grown <= 0
    each = f"memory grows by {grown / _MEASURED:,.0f} bytes a step"
    return Found("memory is steady" if steady else each, good=steady)


@probe(
    wanted="equal weights and batches from equal seeds",
    remedy="draw all from the seed that the workload is given: also shuffling, with a generator",
)
def equal_seeds(make: MakeArm, precision: Precision, batch: Any) -> Found:
    """Runs that are paired by seed, and processes that are compared, must begin alike."""
    starts = []
    for _ in range(2):
        arm = make(precision)
        state, batches = states_of(arm.parts), arm.take(_ALIKE)
        starts.append((state, batches, float(arm.step(batch))))
    (state, batches, loss), (other_state, other_batches, other_loss) = starts
    if (key := state_difference(state, other_state)) is not None:
        return Found(f"{key} differs", good=False)
    if (key := difference(batches, other_batches, "batches")) is not None:
        return Found(f"{key} differs", good=False)
    if not _alike(loss, other_loss):
        return Found(f"the first loss was {loss:.6g}, and then {other_loss:.6g}", good=False)
    return Found("two trainings began alike", good=True)


@probe(
    wanted="two runs from one state that agree",
    remedy="add what is missing to `state` of perfsuite.Training, or give it a state_dict that"
    " holds all it changes",
    captured=True,
)
def restored_state(make: MakeArm, precision: Precision, batch: Any) -> Found:
    """What is copied before a timing and put back after it must be all that a step changes."""
    arm = make(precision)
    arm.step(batch)
    before, restore = states_of(arm.parts), arm.snapshot()
    first = [float(arm.step(batch)) for _ in range(_AGREEING)]
    restore()
    changed = told_by_all(state_difference(before, states_of(arm.parts)))  # all go on, or none
    if (key := next((each for each in changed if each is not None), None)) is not None:
        return Found(f"{key} is not what it was, once it was put back", good=False)
    second = [float(arm.step(batch)) for _ in range(_AGREEING)]
    for at, (then, now) in enumerate(zip(first, second, strict=True), start=1):
        if not _alike(then, now):
            told = (
                f"the loss of step {at} was {then:.6g}, and {now:.6g} once the state was put back"
            )
            return Found(told, good=False)
    return Found(f"{_AGREEING} steps were repeated", good=True)


def _alike(one: float, other: float) -> bool:
    both_nan = math.isnan(one) and math.isnan(other)
    return both_nan or math.isclose(one, other, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)
