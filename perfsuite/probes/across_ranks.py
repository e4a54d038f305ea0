"""Probes of ranks that train together: do they begin, share, average and skip as one?

Each rank looks at its own arm, tells the others hashes or a few numbers, and finds what they find.
"""

import math
import statistics
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from perfsuite.devices.precision import Precision
from perfsuite.devices.ranks import ranks
from perfsuite.measuring.rank_weights import blamed, differences_of_ranks, hash_of, shared_weights
from perfsuite.probes.gradients import given_at_step, gradients_at_step, norm
from perfsuite.probes.probe import (
    Found,
    Make,
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
from perfsuite.training.batches import named_tensors
from perfsuite.training.parallel import beyond_fsdp, is_sharded, local_of

STEPS = 3
_PROJECTIONS = 4
_OFF = {Precision.fp32: 1e-2, Precision.tf32: 1e-2, Precision.fp16: 0.1, Precision.bf16: 0.1}
"""Largest distance of gradients from the mean over ranks, as a share of it. Healthy: none but by
the order of sums; gradients of a rank's own batch: 0.3 and more."""
_TIMES = 0.05  # by which a factor may be off and still be that factor


@probe(
    wanted="weights and buffers that are equal on all ranks before the first step",
    remedy="give all ranks the same seed while the model is built, or let DDP copy rank 0's",
)
def started_alike(make: Make, precision: Precision, batch: Any) -> Found:  # noqa: ARG001  # as probes are called
    """Ranks must begin with the same weights; of sharded ones nothing can be said."""
    arm = make(precision)
    begun = shared_weights(arm) | _buffers(arm)
    return _alike(begun, arm, f"{len(begun)} weights and buffers began alike")


def _alike(named: Mapping[str, Tensor], arm: Arm, told: str) -> Found:
    differing = differences_of_ranks(named, told_by_all)
    name = blamed(differing, arm.accepts)
    return Found(told, good=True) if name is None else Found(differing[name], False, name=name)


@probe(
    wanted="other samples on each rank",
    remedy="give the loader a DistributedSampler, or each rank its share of one order",
)
def shares_differ(make: Make, precision: Precision, batch: Any) -> Found:  # noqa: ARG001  # as probes are called
    """Ranks must train on different samples, or all but one of them work for nothing."""
    arm = make(precision)
    _each_with_its_own(arm)
    (first,) = arm.take(1)
    if not [*named_tensors(first)]:
        raise NotShownError("its batches hold no tensors")
    told = told_by_all(hash_of(first))
    for rank, each in enumerate(told):
        if (other := told.index(each)) != rank:
            return Found(f"the first batches of ranks {other} and {rank} are the same", good=False)
    return Found(f"the first batches of {len(told)} ranks differ", good=True)


def _each_with_its_own(arm: Arm) -> None:
    """Raise NotShownError where ranks are not known to need samples of their own."""
    models = [part for part in arm.parts.values() if isinstance(part, nn.Module)]
    if anywhere(beyond_fsdp(models)):
        raise NotShownError(
            "weights are laid over ranks otherwise than by DDP or FSDP alone: which ranks have to"
            " train on the same samples is not told"
        )


@probe(
    wanted="weights that are equal on all ranks, bit for bit, after a few steps",
    remedy="average gradients over ranks before anything uses them, and change no weight by what"
    " one rank alone has",
)
def weights_equal(make: Make, precision: Precision, batch: Any) -> Found:
    """Weights must stay equal: what differs by a bit drifts apart. Sharded ones have no copies."""
    arm = make(precision)
    for _ in range(STEPS):
        arm.step(batch)
    weights = shared_weights(arm)
    return _alike(weights, arm, f"{len(weights)} weights are equal after {STEPS} steps")


@probe(
    wanted="buffers that are equal on all ranks as a model is called",
    remedy="leave DDP's broadcast_buffers on, or use SyncBatchNorm: else each rank evaluates"
    " another model, and saves another checkpoint",
)
def buffers_equal(make: Make, precision: Precision, batch: Any) -> Found:
    """Buffers, as running statistics, must be the same wherever a layer uses them.

    Looked at as their module is called: DDP copies rank 0's before a forward pass, in which each
    rank changes its own.
    """
    arm = make(precision)
    if not anywhere(bool(_buffers(arm))):
        return Found("there are no buffers", good=True)
    for _ in range(STEPS):
        arm.step(batch)
    seen: dict[str, Tensor] = {}

    def look(name: str, module: nn.Module, _: Any) -> None:
        for own, buffer in module.named_buffers(prefix=name, recurse=False):
            if not is_sharded(buffer):
                seen.setdefault(own, buffer.detach().clone())

    with ExitStack() as hooks:
        for name, module in named_modules(arm):
            hooks.enter_context(module.register_forward_pre_hook(partial(look, name)))
        arm.step(batch)
    return _alike(seen, arm, f"{len(seen)} buffers are equal")


def _buffers(arm: Arm) -> dict[str, Tensor]:
    return {
        own: buffer.detach()
        for name, module in named_modules(arm)
        for own, buffer in module.named_buffers(prefix=name, recurse=False)
        if not is_sharded(buffer)
    }


@probe(
    wanted="the mean over ranks of the gradients of each one's own batch",
    remedy="wrap the model in DDP or FSDP, call the wrapped one, and leave no_sync before the last"
    " micro-batch; averaged by hand, divide the sum by the number of ranks",
)
def gradients_averaged(make: Make, precision: Precision, batch: Any) -> Found:
    """The optimizer must be given the mean of what the ranks' own batches give.

    Under DDP a rank's own are those of the same step with `no_sync`, before they are clipped. A
    factor below one may be a clip's, and is no fault. Of anything else all losses but one rank's
    are taken away, and all must be given gradients: of what factor is not told.
    """
    arm = settled(without_dropout(make(precision)), batch)
    _each_with_its_own(arm)
    copies = [
        module for _, module in named_modules(arm) if isinstance(module, DistributedDataParallel)
    ]
    if anywhere(
        not copies or len(arm.optimizers) > 1
    ):  # as of adversaries, of which one waits for the other
        return _reach_all(arm, batch)
    own = _own_gradients(arm, copies, batch)
    arm = settled(without_dropout(make(precision)), batch)
    given = _projected(arm, *given_at_step(arm, batch))
    told = told_by_all(own)
    mean = [statistics.fmean(each) for each in zip(*told, strict=True)]
    length = math.hypot(*mean)
    if not math.isfinite(length) or not length:
        raise NotShownError("the ranks' batches give no gradient, or no finite one")
    factor = sum(a * b for a, b in zip(given, mean, strict=True)) / length**2
    apart = math.dist(given, [factor * each for each in mean]) / length
    told_all = told_by_all((factor, apart / factor if factor > 0 else math.inf))
    return _judged(told_all, _OFF[precision])


def _judged(told: list[tuple[float, float]], most: float) -> Found:
    """Judge by each rank's factor to the mean, and how far it is from that as a share of it."""
    off = max(apart for _, apart in told)
    factor = max(factor for factor, _ in told)
    if not off <= most:
        return Found(f"gradients are {off:.2g} of themselves off the mean over ranks", good=False)
    if factor > 1 + _TIMES:
        summed = abs(factor / len(told) - 1) < _TIMES
        how = f": the sum over {len(told)} ranks" * summed
        return Found(f"gradients are {factor:.3g} times the mean over ranks{how}", good=False)
    return Found(f"gradients are {factor:.3g} times the mean over ranks", good=True)


def _own_gradients(arm: Arm, copies: list[DistributedDataParallel], batch: Any) -> list[float]:
    """Take a step without the others; return this rank's gradients, projected and unscaled."""
    scale = arm.scaler.get_scale() if arm.scaler.is_enabled() else 1.0
    last: dict[int, Tensor] = {}

    def see(parameter: Tensor) -> None:
        assert parameter.grad is not None  # it has just been given one
        last[id(parameter)] = parameter.grad.detach().clone()

    with ExitStack() as entered:
        for copy in copies:
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


@probe(
    wanted="a step that overflows on one rank is skipped by all, with the same scale afterwards",
    remedy="average gradients while they are scaled, before the scaler looks at them; of gradients"
    " that are sharded by hand reduce its found_inf over ranks",
)
def scalers_agree(make: Make, precision: Precision, batch: Any) -> Found:
    """Where one rank's gradients overflow, all ranks must skip the step, and lower their scale.

    The overflow is put into the gradient of what the model returns on the last rank.
    """
    if not precision.scales_gradients:
        raise NotShownError("no gradient is scaled in this precision")
    arm = settled(make(precision), batch)
    scaler = arm.scaler
    if anywhere(not scaler.is_enabled()):
        raise NotShownError("add the gradient scaler to `state` of perfsuite.Training")
    arm.step(batch)
    before = [local_of(each.detach()).clone() for each in arm.parameters()]
    last = ranks().seat.rank == len(ranks()) - 1
    with on_backward(arm, lambda g: torch.full_like(g, math.inf) if last else g):
        arm.step(batch)
    now = [local_of(each.detach()) for each in arm.parameters()]
    stayed = all(torch.equal(one, other) for one, other in zip(before, now, strict=True))
    told = told_by_all((stayed, scaler.get_scale()))
    took = [rank for rank, (skipped, _) in enumerate(told) if not skipped]
    scales = sorted({scale for _, scale in told})
    if took:
        more = f" and {len(took) - 1} more" * (len(took) > 1)
        wrong = f"rank {took[0]}{more} took a step that overflowed on rank {len(told) - 1}"
        return Found(wrong, good=False)
    if len(scales) > 1:
        return Found(f"scales of {' and '.join(f'{s:g}' for s in scales)} afterwards", good=False)
    return Found(f"{len(told)} ranks skipped the step, and their scale is {scales[0]:g}", good=True)


ACROSS_RANKS = (
    started_alike,
    shares_differ,
    gradients_averaged,
    weights_equal,
    buffers_equal,
    scalers_agree,
)
"""Looked at where there are several ranks."""
