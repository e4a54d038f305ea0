"""The kernels of a step: how long they take and how many they are, outside of whatever is timed."""

from collections.abc import Iterable
from statistics import median

from perfsuite.devices.device import Device
from perfsuite.judging.blocks import Block
from perfsuite.judging.host_bound import Kernels, Load, load_of
from perfsuite.measuring.timing import Timeable

STEPS, REPEATS = 4, 5
TRIES = 5
"""In times of the repeats, while the device is held back: a slower clock is no slower kernel."""


def kernels_of(arm: Timeable, device: Device, *, repeats: int = REPEATS) -> Kernels | None:
    """Return the kernels of a warm arm's step, medians over repeats; None where none are told.

    Repeats in which the device was held back are set aside, unless it always was.
    """
    found: list[Kernels] = []
    held_back: list[Kernels] = []
    sensor = device.sensor()
    while len(found) < repeats and len(found) + len(held_back) < TRIES * repeats:
        batches = arm.take(STEPS)

        def steps() -> None:
            with device.clock().taking(arm.step) as step:
                for batch in batches:  # noqa: B023  # called at once
                    step(batch)

        before = sensor.read()
        launched = device.kernels(steps)
        if launched is None:
            return None
        held = sensor.held_back(before, sensor.read())
        (held_back if held else found).append(launched)
    found = found or held_back
    return Kernels(
        kernel_s=median(each.kernel_s for each in found) / STEPS,
        launches=median(each.launches for each in found) / STEPS,
    )


def loads_of(timed: Iterable[tuple[Timeable, Iterable[Block]]], device: Device) -> list[Load]:
    """Return the loads of warm arms, with the blocks that were timed of them; none on a CPU."""
    loads = []
    for arm, blocks in timed:
        used = list(blocks)
        if load_of(arm.label, used, None) is not None:
            load = load_of(arm.label, used, kernels_of(arm, device))
            assert load is not None
            loads.append(load)
    return loads
