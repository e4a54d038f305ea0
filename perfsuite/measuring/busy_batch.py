"""How large a batch has to be for the device to be the limit of a step, and not its host."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from perfsuite.devices.device import Device
from perfsuite.devices.precision import Precision
from perfsuite.devices.ranks import ranks
from perfsuite.judging.host_bound import load_of
from perfsuite.measuring.kernels import kernels_of
from perfsuite.measuring.timing import time_block
from perfsuite.training.arm import Arm

if TYPE_CHECKING:
    from perfsuite.measuring.bench import Bench

MOST_DOUBLINGS = 4
STEPS = 3
"""Few, so that their launches find a place in the device's queue: the host does not wait for it."""
WARM_UP = 2  # blocks


def busy_doublings(perf: "Bench", *precisions: Precision) -> int:
    """Return how often the batch has to be doubled for the device to be busy; 0 on a CPU.

    It is part of what was measured. Where runs were promoted, it is as it was for them.
    """
    device = perf.machine.device
    if device.profiled_by == "cpu":  # it has no kernels, and nobody to wait for
        return 0
    found: int | None = perf.promoted.get("doublings")
    if found is None:
        perf.progress("looking for a batch that keeps the device busy")(0, 1)
        found, why = doublings_until_busy(
            lambda doublings: [perf.fresh(each).enlarged(doublings) for each in precisions], device
        )
        if why:
            perf.show(f"a batch x{2**found} does not keep the device busy: {why}")
    perf.configure(doublings=found)
    return found


def doublings_until_busy(arms: Callable[[int], Sequence[Arm]], device: Device) -> tuple[int, str]:
    """Return how often batches have to be doubled for all arms to keep the device busy.

    `arms` makes fresh ones of batches that were doubled so often. The second value says why they
    were doubled no further, where the device is not yet busy: memory has ended, or a training
    takes no larger batch.
    """
    doublings = 0
    while True:
        try:
            # All are there at once, as they will be when they take turns; the first that is not
            # busy settles it.
            busy = all(_is_busy(arm, device) for arm in arms(doublings))
        except RuntimeError as error:
            if not doublings:
                raise
            why = str(error).partition("\n")[0] or type(error).__name__
            return doublings - 1, f"a batch x{2**doublings} failed: {why}"
        if busy:
            return doublings, ""
        if doublings == MOST_DOUBLINGS:
            return doublings, "no larger batch is tried"
        doublings += 1


def _is_busy(arm: Arm, device: Device) -> bool:
    clock = device.clock()
    for _ in range(WARM_UP):
        time_block(arm, clock, STEPS)
    blocks = [time_block(arm, clock, STEPS)]
    load = load_of(arm.label, blocks, None)
    busy = load is None or load.keeps_busy
    if not all(ranks().each(busy)):  # or else one of them would take steps alone
        load = load_of(arm.label, blocks, kernels_of(arm, device, repeats=1))
        busy = load is not None and load.keeps_busy
    return all(ranks().each(busy))
