"""The ledger of a step: operators, casts, FLOPs, bytes and host reads, counted and not timed."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress

from torch import nn

from perfsuite.devices.choice import device_of
from perfsuite.judging.counts import PEAK, Ledger, merged
from perfsuite.measuring.kernels import kernels_of
from perfsuite.measuring.memory import activation_bytes
from perfsuite.measuring.scripted_run import count_compilation
from perfsuite.measuring.tracing import Call, Trace, traced, uncompiled
from perfsuite.training.arm import Arm, NotShownError

WARM_UP, MOST_WARM_UP, COUNTED = 1, 30, 2
"""Steps before those that are counted; the most, while a gradient scaler settles; and those."""

# By which the host learns what the device computed, and waits for it.
_HOST_READS = frozenset({"_local_scalar_dense", "nonzero", "equal", "is_nonzero", "masked_select"})
_COPIES = frozenset({"_to_copy", "clone", "copy_"})
_NO_WORK = frozenset({"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"})


def count_step(arm: Arm, **about: str) -> Ledger:
    """Take some steps of an arm, and return the ledger of one; `about` tells what is counted.

    Steps before it let a gradient scaler and the optimizer's state settle. Two steps are counted:
    what differs between them is unsteady.

    Counts are named ``PHASE: OPERATOR DTYPES``; copies ``PHASE: cast A -> B``, ``copy A -> B``
    (devices) or ``layout to A``. Views cost nothing and are left out. A step that is compiled is
    counted as it is written, and what it is compiled into beside that: see `count_compilation`.
    """
    arm = arm.as_written()  # a graph that was captured is one launch, whatever is in it
    with uncompiled():
        settle(arm)
    models = shown_models(arm)
    totals = {}
    if models:
        (batch,) = arm.take(1)
        totals["parameters"] = sum(parameter.numel() for parameter in arm.parameters())
        with uncompiled():
            totals["bytes saved for backward"] = activation_bytes(arm, batch)
    ledgers = []
    for _ in range(COUNTED):
        (batch,) = arm.take(1)
        with traced(models) as trace:
            arm.step(batch)
        ledgers.append(_ledger_of(trace))
    ledger = merged(ledgers)
    ledger.about.update(about_batch(arm), **about)
    ledger.counts.update(totals)
    if (kernels := kernels_of(arm, device_of(arm.device), repeats=1)) is not None:
        ledger.counts["launches"] = round(kernels.launches)
    compiled = count_compilation(arm)
    ledger.about.update(compiled.about)
    ledger.counts.update(compiled.counts)
    ledger.sites.update(compiled.sites)
    return ledger


def settle(arm: Arm) -> None:
    """Take steps until the gradient scaler skips none."""
    scale, steps = None, 0
    while steps < WARM_UP or (arm.scaler.get_scale() != scale and steps < MOST_WARM_UP):
        scale = arm.scaler.get_scale()
        for batch in arm.take(1):
            arm.step(batch)
        steps += 1


def shown_models(arm: Arm) -> list[nn.Module]:
    """Return the modules in an arm's state, none where it shows none."""
    with suppress(NotShownError):
        return arm.models
    return []


def about_batch(arm: Arm) -> dict[str, str]:
    """Return of what batches, and in which precision, a step is counted."""
    shapes = (
        f"{name} {' x '.join(map(str, shape))} {str(dtype).removeprefix('torch.')}"
        for name, shape, dtype in arm.shapes or ()
    )
    return {"batch": ", ".join(shapes), "precision": str(arm.precision)}


def _ledger_of(trace: Trace) -> Ledger:
    sites: dict[str, Counter[str]] = defaultdict(Counter)
    flops: Counter[str] = Counter()
    for call in trace.calls:
        for name in _names(call):
            sites[name][call.site] += 1
        if call.flops:
            flops[_floating(call)] += call.flops
        if call.drawn:
            sites["random numbers"][call.site] += call.drawn
    counts = {name: found.total() for name, found in sites.items()}
    counts |= {f"FLOPs {dtype}": number for dtype, number in flops.items()}
    counts |= {
        "host reads": counts.get("host reads", 0),
        "random numbers": counts.get("random numbers", 0),
        "optimizer steps": trace.optimizer_steps,
        "bytes allocated": sum(call.fresh_bytes for call in trace.calls),
        PEAK: trace.peak_bytes,
    }
    return Ledger(counts=counts, sites={name: dict(found) for name, found in sites.items()})


def _names(call: Call) -> Iterable[str]:
    """Return what an operator is counted as: itself, or what it does to a tensor; reads beside."""
    if call.name in _NO_WORK:
        return
    if call.name in _HOST_READS:
        yield "host reads"
    did = list(_copied(call)) if call.name in _COPIES else []
    for each in did or [f"{call.name} {_dtypes(call)}".rstrip()]:
        yield f"{call.phase}: {each}"


def _copied(call: Call) -> Iterable[str]:
    if not call.inputs or not call.outputs:
        return
    source, target = call.inputs[-1 if call.name == "copy_" else 0], call.outputs[0]
    if source.dtype != target.dtype:
        yield f"cast {source.dtype} -> {target.dtype}"
    if source.device != target.device:
        yield f"copy {source.device} -> {target.device}"
    elif source.layout != target.layout and source.dtype == target.dtype:
        yield f"layout to {target.layout}"


def _dtypes(call: Call) -> str:
    return "+".join(sorted({each.dtype for each in call.inputs or call.outputs}))


def _floating(call: Call) -> str:
    dtypes: Sequence[str] = [each.dtype for each in call.inputs if "float" in each.dtype]
    return dtypes[0] if dtypes else "other"
