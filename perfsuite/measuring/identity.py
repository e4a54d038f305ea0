"""What was measured, in figures: by these two runs are told to be of the same workload."""

import statistics
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from perfsuite.judging.blocks import Block
from perfsuite.measuring.model_flops import ModelFlops
from perfsuite.measuring.tracing import uncompiled
from perfsuite.training.arm import Arm, NotShownError
from perfsuite.training.batches import TrainingError
from perfsuite.training.parallel import parallel_of

_MUCH = 0.1  # scatter of blocks, as a share of their median, that a reader should know of


def identity_of(arm: Arm) -> dict[str, Any]:
    """Take a step, and return parameters, shapes of a batch, and the model's FLOPs in a step.

    Where nobody knows those of some operators, there are none, and their names in their place.

    And how ranks train it together, where they do by torch's own means.

    Sets `flops` of the arm, and checks that the step left its models on the device.

    Raises:
        TrainingError: it did not.
    """
    (batch,) = arm.take(1)
    with uncompiled(), ModelFlops() as counted:
        arm.step(batch)
    unknown = sorted(counted.unknown) if arm.flops is None else []
    if arm.flops is None and counted.flops and not unknown:
        arm.flops = float(counted.flops)
    found: dict[str, Any] = {
        "samples": arm.samples(batch),
        "batch": [[name, *shape, str(dtype)] for name, shape, dtype in arm.shapes or ()],
        "flops": arm.flops,
    }
    if unknown:
        found["flops_unknown"] = unknown
    if arm.written is not None:
        found["graph"] = True
    with suppress(NotShownError):
        if (how := parallel_of(arm.models)) is not None:
            found["parallel"] = how
        parameters = arm.named_parameters()
        found["parameters"] = sum(parameter.numel() for parameter in parameters.values())
        for name, parameter in parameters.items():
            if parameter.device.type != arm.device.type:
                raise TrainingError(
                    f"{name} is on {parameter.device} after a step, not on {arm.device}: build the"
                    " model on the device that the workload is given, and leave it there"
                )
    return found


def throughput_of(arm: Arm, step_s: float, *, flops: float | None) -> dict[str, float]:
    """Return rates by their unit: samples, tokens and FLOPs, as far as they are known."""
    (batch,) = arm.take(1)
    rates = {"samples/s": arm.samples(batch) / step_s}
    if arm.tokens is not None:
        rates["tokens/s"] = arm.tokens(batch) / step_s
    if flops is not None:
        rates["TFLOP/s"] = flops / step_s / 1e12
    return rates


def spread_of(blocks: Sequence[Block]) -> str | None:
    """Return what is to be said where blocks differ by much from each other."""
    times_s = [block.step_s for block in blocks]
    if len(times_s) < 2:
        return None
    middle = statistics.median(times_s)
    scatter = statistics.median(abs(time_s - middle) for time_s in times_s) * 1.4826 / middle
    if scatter < _MUCH:
        return None
    loads = [b.state.load_1min for b in blocks if b.state is not None and b.state.load_1min]
    beside = f" at a load of {statistics.median(loads):.1f}" if loads else ""
    return (
        f"its blocks scatter by {scatter:.0%} ({min(times_s):.4g} to {max(times_s):.4g} s a"
        f" step){beside}: the machine is not quiet, and the median says little"
    )
