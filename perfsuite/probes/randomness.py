"""The probe of random numbers: new ones for each step, and the same where a step computes again."""

from typing import Any

from perfsuite.devices.precision import Precision
from perfsuite.probes.probe import Found, MakeArm, probe
from perfsuite.probes.products import traced_steps


@probe(
    wanted="random numbers that are new in each step, and the same where a pass is repeated",
    remedy="call no manual_seed within a step, and let a checkpoint keep preserve_rng_state=True",
)
def random_numbers(make: MakeArm, precision: Precision, batch: Any) -> Found:
    """Each step must draw other numbers than the last, and backward those of the forward pass.

    A seed that is set in each step drops out the same units for ever. A forward pass that backward
    computes again, as a checkpoint does, needs the masks that it had, or its gradients are those
    of another network. Both are told by the states of the generator that numbers are drawn from.
    Noise that is added to gradients is drawn in backward alone, and no fault.
    """
    first, second = traced_steps(make, precision, batch).calls
    drawn = [
        {call.drawn_from for call in calls if call.drawn and call.phase != "backward"}
        for calls in (first, second)
    ]
    again = [call for call in first if call.drawn and call.phase == "backward" and call.recorded]
    if drawn[0] & drawn[1]:
        return Found("the second step draws the numbers that the first one drew", good=False)
    if other := [call for call in again if call.drawn_from not in drawn[0]]:
        return Found(
            f"backward draws numbers that the forward pass did not: {other[0].site}", good=False
        )
    many = sum(call.drawn for call in first)
    return Found(f"{many} random numbers a step" if many else "no random numbers", good=True)
