"""The probe of averages over ranks: is an optimizer given the mean of what their batches give?"""

import math
import statistics
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from perfsuite.devices.precision import Precision
from perfsuite.devices.ranks import ranks
from perfsuite.probes.gradients import given_at_step, gradients_at_step, norm
from perfsuite.probes.probe import (
    Found,
    MakeArm,
    anywhere,
    named_modules,
    on_backward,
    probe,
    settled,
    told_by_all,
    without_dropout,
)
from perfsuite.probes.watching import parameters_of, sampled
from perfsuite.training.arm import Arm, NotShownError
from perfsuite.training.parallel import beyond_fsdp, local_of

_PROJECTIONS = 4
_OFF = {Precision.fp32: 1e-2, Precision.tf32: 1e-2, Precision.fp16: 0.1, Precision.bf16: 0.1}
"""Largest distance of gradients from the mean over ranks, as a share of it. Healthy: none but by
the order of sums; gradients of a rank's own batch: 0.3 and more."""
_TIMES = 0.05  # by which a factor may be off and still be that factor
_SAME = 1e-6  # by how much of themselves gradients may differ that are of the same samples
_TWICE_OR_CLIPPED = (
    "divided by the number of ranks twice, or clipped? The loss has to come from what the model"
    " returns to tell: else look without the clip"
)


def each_with_its_own(arm: Arm) -> None:
    """Raise NotShownError where ranks are not known to need samples of their own."""
    models = [part for part in arm.parts.values() if isinstance(part, nn.Module)]
    if anywhere(beyond_fsdp(models)):
        raise NotShownError(
            "weights are laid over ranks otherwise than by DDP or FSDP alone: which ranks have to"
            " train on the same samples is not told"
        )


@probe(
    wanted="the mean over ranks of the gradients of each one's own batch",
    remedy="wrap the model in DDP or FSDP, call the wrapped one, and leave no_sync before the last"
    " micro-batch; averaged by hand, divide the sum by the number of ranks",
)
def gradients_averaged(make: MakeArm, precision: Precision, batch: Any) -> Found:
    """The optimizer must be given the mean of what the ranks' own batches give.

    Under DDP a rank's own are those of the same step with `no_sync`, before they are clipped. A
    factor below one may be a clip's, and is no fault; where it is one to the number of ranks, lower
    gradients tell a clip from a second division. Of anything else all losses but one rank's
    are taken away, and all must be given gradients: of what factor is not told.
    """
    arm = settled(without_dropout(make(precision)), batch)
    each_with_its_own(arm)
    # Several are as of adversaries, of which one waits for the other.
    if anywhere(not _copies(arm) or len(arm.optimizers) > 1):
        return _reach_all(arm, batch)
    del arm
    found = _compared(make, precision, batch)
    again = None
    if _divided_twice(found.told):
        again = _compared(make, precision, batch, lowered=1 / (2 * len(found.told)))
    return _judged(found, again, _OFF[precision])


class _Compared(NamedTuple):
    """What the optimizers were given, beside the mean over ranks of what each one's batch gives."""

    length: float  # of the mean, as it was projected
    told: list[tuple[float, float]]  # each rank's factor to it; how far off that, as a share of it


def _compared(make: MakeArm, precision: Precision, batch: Any, lowered: float = 1.0) -> _Compared:
    arm = settled(without_dropout(make(precision)), batch)
    with on_backward(arm, lambda gradient: gradient * lowered):
        own = _own_gradients(arm, batch)
    arm = settled(without_dropout(make(precision)), batch)
    with on_backward(arm, lambda gradient: gradient * lowered):
        given = _projected(arm, *given_at_step(arm, batch))
    told = told_by_all(own)
    mean = [statistics.fmean(each) for each in zip(*told, strict=True)]
    length = math.hypot(*mean)
    if not math.isfinite(length) or not length:
        raise NotShownError("the ranks' batches give no gradient, or no finite one")
    if max(math.dist(each, mean) for each in told) <= _SAME * length:
        raise NotShownError(
            "the own gradients of all ranks are the same, averaged or not: give each rank other"
            " samples"
        )
    factor = sum(a * b for a, b in zip(given, mean, strict=True)) / length**2
    apart = math.dist(given, [factor * each for each in mean]) / length
    return _Compared(length, told_by_all((factor, apart / factor if factor > 0 else math.inf)))


def _divided_twice(told: list[tuple[float, float]]) -> bool:
    return all(abs(factor * len(told) - 1) < _TIMES for factor, _ in told)


def _judged(found: _Compared, again: _Compared | None, most: float) -> Found:
    """Judge by each rank's factor to the mean, and how far it is from that as a share of it.

    `again` is what was found with gradients that were lowered by twice the number of ranks: a clip
    that had divided them by that number does not reach them there, and a division does.
    """
    told = found.told
    off = max(apart for _, apart in told)
    factor = max(factor for factor, _ in told)
    if not off <= most:
        return Found(f"gradients are {off:.2g} of themselves off the mean over ranks", good=False)
    figure = f"gradients are {factor:.3g} times the mean over ranks"
    if factor > 1 + _TIMES:
        summed = abs(factor / len(told) - 1) < _TIMES
        return Found(figure + f": the sum over {len(told)} ranks" * summed, good=False)
    if again is not None:
        if not again.length < found.length / len(told):  # the models' outputs do not lead there
            return Found(figure, None, remedy=_TWICE_OR_CLIPPED)
        if _divided_twice(again.told):
            return Found(f"{figure}: divided by the number of ranks twice", good=False)
    return Found(figure, good=True)


def _copies(arm: Arm) -> list[DistributedDataParallel]:
    modules = [module for _, module in named_modules(arm)]
    return [module for module in modules if isinstance(module, DistributedDataParallel)]


def _own_gradients(arm: Arm, batch: Any) -> list[float]:
    """Take a step without the others; return this rank's gradients, projected and unscaled."""
    scale = arm.scaler.get_scale() if arm.scaler.is_enabled() else 1.0
    last: dict[int, Tensor] = {}

    def see(parameter: Tensor) -> None:
        assert parameter.grad is not None  # it has just been given one
        last[id(parameter)] = parameter.grad.detach().clone()

    with ExitStack() as entered:
        for copy in _copies(arm):
            entered.enter_context(copy.no_sync())
        for parameter in parameters_of(arm.optimizers[0]):
            if parameter.requires_grad:
                hook = parameter.register_post_accumulate_grad_hook(see)
                entered.callback(hook.remove)
        arm.step(batch)
    return _projected(arm, {key: each.double() / scale for key, each in last.items()})


def _projected(arm: Arm, gradients: Mapping[int, Tensor] = MappingProxyType({})) -> list[float]:
    """Return each gradient's products with the same signs on all ranks: few numbers to tell.

    Of each parameter of the one optimizer, zeros where a rank has no gradient: a rank's own step
    may leave out what another one's uses.
    """
    drawn = torch.Generator().manual_seed(0)
    found: list[float] = []
    for parameter in parameters_of(arm.optimizers[0]):
        values = sampled(gradients.get(id(parameter), torch.zeros_like(parameter))).cpu()
        signs = torch.randint(0, 2, (_PROJECTIONS, len(values)), generator=drawn).double() * 2 - 1
        found += (signs @ values).tolist()
    return found


def _reach_all(arm: Arm, batch: Any) -> Found:
    """Look whether the loss of the last rank alone gives gradients to all of them."""
    with _only_of_last(arm):
        length = norm(map(local_of, gradients_at_step(arm, batch)))
    told = told_by_all(length)
    if not told[-1] > 0:
        raise NotShownError("the last rank's batch gives its optimizer no gradient")
    none = [rank for rank, each in enumerate(told) if not each > 0]
    if none:
        told_of = f"rank {none[0]} is given no gradient of rank {len(told) - 1}'s batch"
        return Found(told_of + f", and {len(none) - 1} more" * (len(none) > 1), good=False)
    return Found("all ranks are given gradients of one's batch", good=True)


@contextmanager
def _only_of_last(arm: Arm) -> Iterator[None]:
    last = ranks().seat.rank == len(ranks()) - 1
    with on_backward(arm, lambda gradient: gradient if last else torch.zeros_like(gradient)):
        yield
