"""Probes of evaluation: what the models of a training return in it, and who forgets to leave it."""

import math
from typing import Any

from perfsuite.devices.precision import Precision
from perfsuite.probes.probe import Found, MakeArm, and_more, probe
from perfsuite.probes.references import led
from perfsuite.training.arm import NotShownError

_LEAST, _TIMES = 0.1, 4.0
"""Largest difference of outputs from fp32's, as a share of them: that, or so many times that of
training mode, by the same weights. Healthy: 0.005, and 1.3 times. A forgotten bias: 0.9. Statistics
of four steps ago are less than that, 0.04 to 0.07: they are seen as buffers."""


@probe(
    wanted="outputs in evaluation mode that are as near to fp32's as those in training mode",
    remedy="what runs in evaluation mode only: running statistics, a branch on `self.training`, a"
    " cast, a fused path? Compare it layer by layer with fp32",
)
def evaluation(make: MakeArm, precision: Precision, batch: Any) -> Found:
    """In evaluation mode, models must return what fp32's return, after the same steps.

    They are given what the step gave them, under autocast. Whatever they return as tensors of
    floating point counts; a model that fp32 cannot call so is not looked at.
    """
    found = led(make, precision, batch)
    if isinstance(found.evaluated, str):
        return Found(f"evaluation raises {found.evaluated}", good=False)
    trained = found.trained if isinstance(found.trained, float) else math.nan
    if math.isnan(found.evaluated) and not math.isnan(trained):
        raise NotShownError(
            "nothing to compare: what the step gives its models, they cannot be called with in"
            " evaluation mode, or return no tensors then, or tensors of other sizes than fp32's"
        )
    if math.isnan(trained):
        raise NotShownError("add the model that the step calls to `state` of perfsuite.Training")
    told = f"outputs are off fp32's by {found.evaluated:.2g}, in training mode by {trained:.2g}"
    return Found(told, good=found.evaluated <= max(_LEAST, _TIMES * trained))


@probe(
    wanted="steps that all run in one mode",
    remedy="call model.train() after an evaluation, and before the next step",
)
def modes(make: MakeArm, precision: Precision, batch: Any) -> Found:
    """No module may be in training mode in one step and not in another.

    A step that evaluates and does not go back trains without dropout, and its running statistics
    stay. How a step begins is not looked at: a model may be made in either mode, and need not be
    called in each step.
    """
    found = led(make, precision, batch)
    if not found.modes:
        raise NotShownError("add the model that the step calls to `state` of perfsuite.Training")
    wrong = [
        f"{name} is in training mode in {calls.in_training} of {calls.called} steps"
        for name, calls in found.modes.items()
        if 0 < calls.in_training < calls.called
    ]
    return Found(and_more(wrong) if wrong else "each step is like the first", good=not wrong)
