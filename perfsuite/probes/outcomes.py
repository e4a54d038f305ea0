"""Probes of what a few steps leave behind: weights, averages and buffers, beside fp32's."""

from collections.abc import Mapping
from typing import Any

from perfsuite.devices.precision import Precision
from perfsuite.probes.probe import Found, MakeArm, and_more, probe
from perfsuite.probes.references import STEPS, Drift, led

_SAME = 1e-4
"""Largest difference of what gradients alone decide, as a share of how far it moved. Healthy: none
at all, to the bit, for every training of this repository. Weights that are rounded to bfloat16: 1;
moments, which move as far as they are large: 2e-3, and 2e-4 in float16."""
_LAST_DIGIT = 2.0**-22  # of a number that hardly moved
_ALIKE = 0.2
"""The same of buffers, which depend on activations. Healthy: 0.008 in bfloat16 with fourteen
convolutions; a buffer that never moves: 1."""
_VANISHED = 0.05
"""Smallest share of fp32's gradient. Healthy: 0.69, of parameters whose gradient is at least
_COUNTS times the typical one. A smaller one may be rounding alone, as of what a softmax or a
normalisation takes off again."""
_COUNTS = 1e-3


@probe(
    wanted="weights that move as fp32's do by the same gradients",
    remedy="keep master weights in float32, and cast no weight after a step: what an update is too"
    " small for is lost. And are learning rate and decay those of fp32?",
)
def update(make: MakeArm, precision: Precision, batch: Any) -> Found:
    """By the same gradients, weights must move as fp32's do: else updates are lost, or added to."""
    found = led(make, precision, batch)
    return _found(found.weights, _SAME, "weights that moved as fp32's")


@probe(
    wanted="moments and averages that are fp32's by the same gradients",
    remedy="keep averages of weights and the optimizer's state in float32, and update them outside"
    " of autocast: in half precision a small change is rounded away",
)
def averages(make: MakeArm, precision: Precision, batch: Any) -> Found:
    """What is kept of weights and gradients must be fp32's too.

    Parameters that no optimizer has, as of an average of the weights; an optimizer's moments; and
    tensors of any other part of the state.
    """
    found = led(make, precision, batch)
    return _found(found.averages, _SAME, "moments and averages that are fp32's")


@probe(
    wanted="buffers that move as fp32's do",
    remedy="run the forward pass in training mode, and put no buffer back: evaluation would use"
    " statistics of other weights",
)
def buffers(make: MakeArm, precision: Precision, batch: Any) -> Found:
    """Buffers must move as fp32's do, as running statistics, of which a training's loss is free.

    Those of a layer that normalises in training mode must move at all, in any precision.
    """
    found = led(make, precision, batch)
    if found.still:
        told = f"the running statistics of {and_more(found.still)} never moved"
        return Found(told, good=False)
    return _found(found.buffers, _ALIKE, "buffers that moved as fp32's")


def _found(drifts: Mapping[str, Drift], share: float, told: str) -> Found:
    wrong = {
        name: each
        for name, each in drifts.items()
        if not each.apart <= share * each.moved + _LAST_DIGIT * each.size
    }
    if not wrong:
        return Found(f"{len(drifts)} {told}", good=True)
    name = max(wrong, key=lambda name: wrong[name].apart / (wrong[name].moved or 1e-300))
    each = wrong[name]
    off = f"moved otherwise than in fp32, by {each.apart / each.moved:.2g} of its movement there"
    told = f"{name} {off if each.moved else 'moved, and not in fp32'}"
    more = f"; {len(wrong) - 1} more did" * (len(wrong) > 1)
    return Found(f"after {STEPS} steps {told}{more}", good=False)


@probe(
    wanted="every parameter that is given gradients is trained",
    remedy="give the optimizer all parameters, and requires_grad_(False) to those that are to stay;"
    " in float16 scale the loss",
)
def trained_parameters(make: MakeArm, precision: Precision, batch: Any) -> Found:
    """What is given gradients must be in an optimizer, and not lose them in the precision.

    The norm of all gradients does not tell that those of one block are gone.
    """
    found = led(make, precision, batch)
    if found.homeless:
        return Found(f"no optimizer has {and_more(found.homeless)}", good=False)
    given = [reference for reference, _ in found.gradients.values()]
    typical = (sum(each**2 for each in given) / max(len(given), 1)) ** 0.5
    gone = [
        f"{name} is given {ours / reference:.2g} times fp32's gradient"
        for name, (reference, ours) in found.gradients.items()
        if reference > _COUNTS * typical and ours < _VANISHED * reference
    ]
    if gone:
        return Found(and_more(gone), good=False)
    return Found(f"{len(given)} parameters are trained", good=True)
