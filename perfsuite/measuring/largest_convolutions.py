"""The largest convolutions at the top of a ladder, each by itself: which share of the ceiling."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from perfsuite.devices.device import Device
from perfsuite.devices.precision import Precision, backend_flags
from perfsuite.judging.ceilings import CeilingError, highest_rate
from perfsuite.judging.gains import LeverTried
from perfsuite.judging.top_rung import Convolution, rungs_kept
from perfsuite.measuring.bench import Bench
from perfsuite.measuring.ceiling_search import (
    BUDGET_S,
    SHARE,
    Repeated,
    ceilings_of,
    raise_ceiling,
    with_share,
)
from perfsuite.measuring.climbing import Recipe
from perfsuite.measuring.model_flops import flops_of, name_of
from perfsuite.measuring.tracing import tensors_in, uncompiled


@dataclass(frozen=True, slots=True)
class _TimedCall:
    """An operator, as a step called it."""

    flops: int
    shapes: list[list[int]]
    again: Callable[[], object]


class _Largest(TorchDispatchMode):
    """Notes, while entered, the largest convolution, and the one with the largest gradients."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch gives it no types
        self.calls: dict[str, _TimedCall] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Compute, and keep what it takes to compute it again."""
        del types  # part of torch's signature
        kwargs, name = kwargs or {}, name_of(func)
        result = func(*args, **kwargs)
        flops = flops_of(func, args, kwargs, result) or 0
        if "convolution" in name and flops > getattr(self.calls.get(name), "flops", 0):
            shapes = [list(each.shape) for each in tensors_in(args) if each.dim() > 1]
            self.calls[name] = _TimedCall(flops, shapes, partial(func, *args, **kwargs))
        return result


def largest_convolutions(
    perf: Bench,
    first: Recipe,
    levers: Mapping[str, Mapping[str, Any]],
    tried: Sequence[LeverTried],
    *,
    samples: int,
) -> list[Convolution]:
    """Time the largest convolutions of a ladder's top rung, after `try_levers` climbed it.

    They are given what the step gave them: shapes, dtypes and memory format. One that is faster
    than the ceiling is the ceiling from then on, for the rungs in `tried` as well.
    """
    recipe = first
    for each in rungs_kept(tried)[1:]:
        recipe = replace(recipe, **levers[each.name])
    recipe, device = recipe.step_alone, perf.machine.device
    arm = perf.workload.arm(recipe.precision, perf.device, levers=recipe)
    arm = arm.resized(samples << recipe.doublings).as_written()
    (batch,) = arm.take(1)
    with uncompiled(), _Largest() as largest:
        arm.step(batch)
    rates = {}  # in TFLOP/s
    for name, call in sorted(largest.calls.items()):
        with backend_flags(recipe.precision, benchmark=recipe.cudnn_benchmark), torch.no_grad():
            rates[name] = _alone(call, device) / 1e12
    if rates:
        _raise_ceiling(perf, recipe.precision, max(rates.values()), tried)
    found = []
    for name, tflop_per_s in rates.items():
        told, wrong = with_share({"TFLOP/s": tflop_per_s}, recipe.precision, device)
        perf.gate(*wrong)
        found.append(
            Convolution(
                operator=name,
                shapes=largest.calls[name].shapes,
                flop_per_s=tflop_per_s * 1e12,
                share_of_ceiling=told.get(SHARE),
            )
        )
    return found


def _raise_ceiling(
    perf: Bench, precision: Precision, tflop_per_s: float, tried: Sequence[LeverTried]
) -> None:
    """Let a convolution raise the ceiling that it is above, and hold all rungs against that."""
    device = perf.machine.device
    try:
        # In the digits in which its share is asked for, or the last one may make it more than all.
        rose = raise_ceiling(device, precision, tflop_per_s * 1e12)
    except CeilingError:  # which is told with the shares
        return
    if rose == 1:
        return
    for each in tried:
        if each.precision == str(precision) and each.share_of_ceiling is not None:
            each.share_of_ceiling /= rose
    perf.keep("ceilings", asdict(ceilings_of(device)))
    perf.show(
        f"the largest convolution does {tflop_per_s:.4g} TFLOP/s by itself, {rose:.2f} times"
        f" the ceiling in {precision} so far: shares of it above are as many times less"
    )


def _alone(call: _TimedCall, device: Device) -> float:
    timed = Repeated(device, lambda _: call.again)
    return highest_rate(timed, lambda _: call.flops, [1], budget_s=BUDGET_S / 2)
