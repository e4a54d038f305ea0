"""Which levers help this step on this device? Each is tried beside the step as it is."""

from dataclasses import asdict
from typing import Any

import pytest

from perfsuite import Bench, LeverError, Recipe, own_samples, prefetching, try_levers

LEVERS: dict[str, dict[str, Any]] = {
    "channels_last": {"channels_last": True},
    "fused optimizer": {"fused": True},
    "cudnn.benchmark": {"cudnn_benchmark": True},
    "CUDA graph": {"graph": True},
    "torch.compile": {"compile": True},
    "batch x2": {"doublings": 1},
    "batch x4": {"doublings": 2},
}


@pytest.mark.one_rank
@pytest.mark.when_named
@pytest.mark.one_tree
def test_step_advice(perf: Bench) -> None:
    """Each takes turns with the plain step, in the precision that one would train in here."""
    precision = perf.machine.device.fast_precision
    samples = own_samples(perf, precision)
    plain = Recipe(precision=precision)
    perf.configure(precision=str(precision))
    found = try_levers(perf, plain, LEVERS, foot="as it is", samples=samples, climb=False)
    loader = perf.workload.make(precision, perf.device, 0).batches
    try:
        ready = prefetching(loader, perf.device)
    except LeverError as error:
        perf.show(f"loader that prefetches: left out: {error}")
    else:
        fed = Recipe(precision=precision, feed=lambda _: loader)
        lever = {"loader that prefetches": {"feed": lambda _: ready}}
        foot = "fed by its loader"
        found += try_levers(perf, fed, lever, foot=foot, samples=samples, climb=False)
    perf.keep("levers", [asdict(each) for each in found])
