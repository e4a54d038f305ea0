"""Which levers help this step on this device? Each is tried beside the step as it is."""

from dataclasses import asdict, replace
from typing import Any

import pytest

from perfsuite import Bench, LeverError, Precision, Recipe, own_samples, prefetching, try_levers

AMP, CHANNELS_LAST = "mixed precision", "channels_last"
LEVERS: dict[str, dict[str, Any]] = {
    "fused optimizer": {"fused": True},
    "cudnn.benchmark, set late": {"cudnn_benchmark": True},
    "CUDA graph": {"graph": True},
    "torch.compile": {"compile": True},
    "batch x2": {"doublings": 1},
    "batch x4": {"doublings": 2},
}


@pytest.mark.one_rank
@pytest.mark.when_named
@pytest.mark.one_tree
def test_step_advice(perf: Bench) -> None:
    """Precision and memory format first, in each combination, and the rest beside the fastest."""
    plain = Recipe(precision=Precision.fp32)
    samples = own_samples(perf, plain.precision)
    amp: dict[str, Any] = {"precision": perf.machine.amp[-1]}  # bf16, where there is bf16
    last: dict[str, Any] = {"channels_last": True}
    first = {CHANNELS_LAST: last, AMP: amp, f"{AMP}, {CHANNELS_LAST}": amp | last}
    perf.configure(precision=str(perf.machine.amp[-1]))
    found = try_levers(perf, plain, first, foot="as it is in fp32", samples=samples, climb=False)
    best = max(found, key=lambda tried: tried.surely_gained)
    plain = replace(plain, **first.get(best.name, {}))
    found += try_levers(perf, plain, LEVERS, foot=best.name, samples=samples, climb=False)[1:]
    loader = perf.workload.make(plain.precision, perf.device, 0).batches
    try:
        ready = prefetching(loader, perf.device)
    except LeverError as error:
        perf.show(f"loader that prefetches: left out: {error}")
    else:
        fed = replace(plain, feed=lambda _: loader)
        lever = {"loader that prefetches": {"feed": lambda _: ready}}
        foot = f"{best.name}, fed by its loader"
        found += try_levers(perf, fed, lever, foot=foot, samples=samples, climb=False)
    perf.keep("levers", [asdict(each) for each in found])
