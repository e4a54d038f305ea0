"""The collectives of a step, counted without a cluster: number, kind and bytes, for many ranks."""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from perfsuite.devices.precision import Precision
from perfsuite.judging.counts import Ledger, merged
from perfsuite.measuring.fake_ranks import fake_ranks
from perfsuite.measuring.step_counts import COUNTED, about_batch, settle, shown_models
from perfsuite.measuring.tracing import Call, tensors_in, traced, uncompiled
from perfsuite.training.arm import Arm
from perfsuite.training.batches import TrainingError
from perfsuite.training.workload import Workload

RANKS = (8, 64, 512)
WARM_UP = 2
"""Steps before those that are counted: in its second one, DDP agrees on its buckets."""

_NAMESPACES = frozenset({"c10d", "_c10d_functional", "_c10d_functional_autograd"})
_WAITING = frozenset({"wait_tensor", "_wrap_tensor_autograd"})
# How torch varies the names of one collective: in place, of one tensor, of several at once.
_VARIANT = re.compile(r"_(base|into_tensor|tensor|single|coalesced|out|any_source)(?=_|$)")
_ALL = re.compile(r"^all_?(to_?)?(all|gather|reduce)")


def count_collectives(
    workload: Workload,
    precision: Precision = Precision.fp32,
    device: torch.device = torch.device("cpu"),  # noqa: B008  # it cannot be changed
    *,
    ranks: Sequence[int] = RANKS,
) -> Ledger:
    """Count the collectives of a step on so many ranks, of which there is only this one process.

    The training is made anew for each number of ranks, while the default process group is a fake
    one of that size; it has to be small enough for one process. As for `count_step`, two steps
    are counted, and what differs between them is unsteady.

    Counts are named ``PHASE: KIND DTYPE``, such as ``backward: reduce_scatter bfloat16``, and
    ``bytes PHASE: KIND DTYPE``: of the whole tensor, which of this rank's input and output is the
    larger one, as what is gathered, or what is about to be scattered. ``parameters on a rank``
    are those that it keeps. A count that depends on the number of ranks has that in its name.

    Raises:
        TrainingError: there is a default process group already, the step calls no collective, or
            what was made is no training.
        FakeRanksError: this torch has no fake process group.
    """
    found = {each: _count(workload, precision, device, each) for each in ranks}
    return _over(found)


def _count(workload: Workload, precision: Precision, device: torch.device, ranks: int) -> Ledger:
    with fake_ranks(ranks):
        arm = workload.arm(precision, device).as_written()
        if (few := workload.ledger_samples) is not None:
            arm = arm.resized(few)
        with uncompiled():
            for _ in range(WARM_UP):
                settle(arm)
        models = shown_models(arm)
        ledger = merged([_ledger_of_step(arm, models) for _ in range(COUNTED)])
        if not ledger.counts and not ledger.unsteady:
            raise TrainingError(
                f"its step calls no collective as one of {ranks} ranks: make the training with"
                " DDP, fully_shard or calls of torch.distributed; is no_sync left on?"
            )
        ledger.about.update(about_batch(arm), workload=workload.name)
        if models:
            ledger.counts["parameters on a rank"] = sum(map(_kept, arm.parameters()))
        return ledger


def _ledger_of_step(arm: Arm, models: Sequence[torch.nn.Module]) -> Ledger:
    counts: Counter[str] = Counter()
    sites: dict[str, Counter[str]] = defaultdict(Counter)

    def look(call: Call, arguments: Sequence[Any], named: Mapping[str, Any], result: Any) -> None:
        kind = collective_of(call)
        if kind is None:
            return
        phase = call.phase
        if phase in ("forward", "between"):
            # A module gathers its weights without gradients; what stands outside of all modules,
            # as gradients that are averaged by hand, need not be done without them.
            phase = "forward" if call.in_module else "between"
        sides = [tensors_in(side) for side in (*arguments, *named.values(), result)]
        whole = max(sides, key=_bytes)
        dtypes = "+".join(sorted({str(each.dtype)[6:] for each in whole}))
        name = f"{phase}: {kind}" if kind == "barrier" else f"{phase}: {kind} {dtypes}"
        counts[name] += 1
        sites[name][call.site] += 1
        if kind != "barrier":
            counts[f"bytes {name}"] += _bytes(whole)

    (batch,) = arm.take(1)
    with traced(models, look):
        arm.step(batch)
    return Ledger(counts=dict(counts), sites={name: dict(found) for name, found in sites.items()})


def collective_of(call: Call) -> str | None:
    """Return what an operator does, all_gather for _allgather_base_; None for no collective."""
    if call.namespace not in _NAMESPACES or call.name in _WAITING:
        return None
    plain = _VARIANT.sub("", call.name.strip("_")).strip("_")
    return _ALL.sub(lambda found: f"all_{'to_' * bool(found[1])}{found[2]}", plain)


def _bytes(tensors: Sequence[torch.Tensor]) -> int:
    return sum(each.numel() * each.element_size() for each in tensors)


def _kept(parameter: torch.nn.Parameter) -> int:
    from torch.distributed.tensor import DTensor  # takes half a second, in each session

    data = parameter.data
    return data.to_local().numel() if isinstance(data, DTensor) else data.numel()


def _over(found: Mapping[int, Ledger]) -> Ledger:
    """Return one ledger of those by number of ranks: what is the same for all is named once."""
    first = next(iter(found.values()))
    one = Ledger(about=first.about | {"ranks": ", ".join(map(str, found))})
    unsteady = {name for each in found.values() for name in each.unsteady}
    for name in {name for each in found.values() for name in each.counts} - unsteady:
        counts = {ranks: each.counts.get(name, 0) for ranks, each in found.items()}
        once = len(set(counts.values())) == 1
        for ranks, count in list(counts.items())[: 1 if once else None]:
            known = name if once else f"{name} at {ranks} ranks"
            one.counts[known] = count
            if name in found[ranks].sites:
                one.sites[known] = found[ranks].sites[name]
    one.unsteady.extend(sorted(unsteady))
    return one
