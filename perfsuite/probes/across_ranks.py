"""Probes of ranks that train together: do they begin, share, stay and skip as one?

Each rank looks at its own arm, tells the others hashes or a few numbers, and finds what they find.
"""

import math
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from perfsuite.devices.precision import Precision
from perfsuite.devices.ranks import ranks
from perfsuite.measuring.rank_weights import blamed, differences_of_ranks, hash_of, shared_weights
from perfsuite.probes.probe import (
    Found,
    MakeArm,
    anywhere,
    named_modules,
    on_backward,
    probe,
    settled,
    told_by_all,
)
from perfsuite.probes.rank_gradients import each_with_its_own, gradients_averaged
from perfsuite.training.arm import Arm, NotShownError
from perfsuite.training.batches import named_tensors
from perfsuite.training.parallel import is_sharded, local_of

STEPS = 3


@probe(
    wanted="weights and buffers that are equal on all ranks before the first step",
    remedy="give all ranks the same seed while the model is built, or let DDP copy rank 0's",
)
def started_alike(make: MakeArm, precision: Precision, batch: Any) -> Found:  # noqa: ARG001  # as probes are called
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
def shares_differ(make: MakeArm, precision: Precision, batch: Any) -> Found:  # noqa: ARG001  # as probes are called
    """Ranks must train on different samples, or all but one of them work for nothing."""
    arm = make(precision)
    each_with_its_own(arm)
    (first,) = arm.take(1)
    if not [*named_tensors(first)]:
        raise NotShownError("its batches hold no tensors")
    told = told_by_all(hash_of(first))
    for rank, each in enumerate(told):
        if (other := told.index(each)) != rank:
            return Found(f"the first batches of ranks {other} and {rank} are the same", good=False)
    return Found(f"the first batches of {len(told)} ranks differ", good=True)


@probe(
    wanted="weights that are equal on all ranks, bit for bit, after a few steps",
    remedy="average gradients over ranks before anything uses them, and change no weight by what"
    " one rank alone has",
)
def weights_equal(make: MakeArm, precision: Precision, batch: Any) -> Found:
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
def buffers_equal(make: MakeArm, precision: Precision, batch: Any) -> Found:
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
    wanted="a step that overflows on one rank is skipped by all, with the same scale afterwards",
    remedy="average gradients while they are scaled, before the scaler looks at them; of gradients"
    " that are sharded by hand reduce its found_inf over ranks",
)
def scalers_agree(make: MakeArm, precision: Precision, batch: Any) -> Found:
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
