"""The kernels of a step: how long they take and how many they are, outside of whatever is timed."""

from collections.abc import Iterable
from statistics import median

from perfsuite.devices.device import Device
from perfsuite.judging.blocks import Block
from perfsuite.judging.host_bound import Kernels, Load, load_of
from perfsuite.measuring.timing import Timeable

STEPS, REPEATS = 4, 5


def kernels_of(arm: Timeable, device: Device, *, repeats: int = REPEATS) -> Kernels | None:
    """Return the kernels of a warm arm's step, medians over repeats; None where none are told."""
    found = []
    for _ in range(repeats):
        batches = arm.take(STEPS)

        def steps() -> None:
            for batch in batches:  # noqa: B023  # called at once
                arm.step(batch)

        launched = device.kernels(steps)
        if launched is None:
            return None
        found.append(launched)
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
