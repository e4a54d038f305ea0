"""The ceilings of a device: its fastest product, convolution, copy and launch, in seconds."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from weakref import WeakKeyDictionary

import torch
from torch import nn

from perfsuite.devices.device import Device
from perfsuite.devices.precision import Precision, backend_flags
from perfsuite.devices.ranks import ranks
from perfsuite.judging.ceilings import (
    ABOVE,
    SHARE_GATE,
    AboveCeilingError,
    CeilingError,
    Ceilings,
    highest_rate,
)
from perfsuite.judging.gains import LeverTried
from perfsuite.judging.gates import JUDGEABLE, Outcome, Verdict
from perfsuite.measuring.identity import throughput_of
from perfsuite.records.notes import Notes
from perfsuite.training.arm import Arm

BUDGET_S = 0.8
"""For blocks of each rate, and a quarter of it for a copy and for launches."""
BLOCK_S = 0.05
"""That a rate has to last at least. Within it a device that is about to draw too much power lowers
its clocks; and it is short enough to find the machine undisturbed now and then."""
PRODUCT_SIZES = tuple(2**power for power in range(10, 15))  # n x n by n x n
CHANNELS = tuple(2**power for power in range(7, 12))  # in and out
IMAGES, SIDE, KERNEL = 32, 14, 3
COPIED_BYTES = 2**28
"""Larger than the last cache of most machines."""
_MOST_TIMES = 2**16
"""Of an operation in a block, should a clock stand still."""
LAUNCHES = 200
"""Few enough to find a place in a device's queue."""

SHARE = "share of ceiling"
"""What it is called among rates."""

_found: "WeakKeyDictionary[Device, Ceilings]" = WeakKeyDictionary()


def ceilings_of(device: Device, *, again: bool = False) -> Ceilings:
    """Return a device's ceilings, measured once in a process, and once more with `again`."""
    known = _found.get(device)
    if known is None or again:
        found = device.ceilings or measure_ceilings(device)
        known = found if known is None else known.or_higher(found)
        _found[device] = known
    return known


def raise_ceiling(device: Device, precision: Precision, flop_per_s: float) -> float:
    """Take what a convolution does for the ceiling, if it is faster; return by what it rose.

    Raises CeilingError where there is no ceiling.
    """
    known = ceilings_of(device)
    seen = Ceilings(convolutions={str(precision): flop_per_s}, unmeasured=known.unmeasured)
    _found[device] = known.or_higher(seen)
    before, after = (each.flop_per_s(precision) for each in (known, _found[device]))
    return 1.0 if before is None or after is None else after / before


def measure_ceilings(device: Device, *, budget_s: float = BUDGET_S) -> Ceilings:
    """Measure the ceilings in all precisions that are worth timing there."""
    rates: dict[str, dict[str, float]] = {"product": {}, "convolution": {}}
    unmeasured: dict[str, str] = {}

    def try_to(name: str, measure: Callable[[], float]) -> float | None:
        try:
            return measure()
        except (RuntimeError, CeilingError) as error:  # no such kernel, or no memory left
            unmeasured[name] = str(error).partition("\n")[0] or type(error).__name__
            return None

    for precision in device.precisions:
        for kind, rate in (("product", _product), ("convolution", _convolution)):
            with backend_flags(precision), torch.no_grad():
                found = try_to(
                    f"{precision} {kind}",
                    lambda: rate(device, precision, budget_s),  # noqa: B023  # called at once
                )
            if found is not None:
                rates[kind][str(precision)] = found
    with torch.no_grad():
        bytes_per_s = try_to("copy", lambda: _copy(device, budget_s / 4))
        launches_per_s = try_to("launch", lambda: _launch(device, budget_s / 4))
    return Ceilings(
        products=rates["product"],
        convolutions=rates["convolution"],
        bytes_per_s=bytes_per_s,
        launch_s=None if launches_per_s is None else 1 / launches_per_s,
        unmeasured=unmeasured,
    )


class Repeated:
    """Times blocks of an operation, which is made anew for each size."""

    def __init__(self, device: Device, make: Callable[[int], Callable[[], object]]) -> None:
        self._clock, self._make = device.clock(), make
        self._size = self._times = 0
        self._operation: Callable[[], object] = lambda: None

    def __call__(self, size: int) -> tuple[int, float]:
        """Return how often a block of BLOCK_S or longer did it, and its seconds."""
        if size != self._size:
            self._operation = lambda: None  # before there is memory for the next
            self._size, self._operation, self._times = size, self._make(size), 1
            self._operation()  # chooses its kernel
        while (taken_s := self._block_s()) < BLOCK_S and self._times < _MOST_TIMES:
            # A clock that ramps up makes of the first blocks a poor guess of the next.
            self._times = math.ceil(self._times * min(8.0, 1.1 * BLOCK_S / max(taken_s, 1e-9)))
        return self._times, taken_s

    def _block_s(self) -> float:
        self._clock.start()
        for _ in range(self._times):
            self._operation()
        wall_s, device_s = self._clock.stop()
        return wall_s if device_s is None else device_s


def _product(device: Device, precision: Precision, budget_s: float) -> float:
    dtype = precision.autocast_dtype or torch.float32

    def make(size: int) -> Callable[[], object]:
        # Never of zeros, by which a GPU draws less power and so is faster.
        one, other = (torch.randn(size, size, device=device.place).to(dtype) for _ in range(2))
        out = torch.empty_like(one)
        return lambda: torch.mm(one, other, out=out)

    return highest_rate(
        Repeated(device, make), lambda size: 2 * size**3, PRODUCT_SIZES, budget_s=budget_s
    )


def _convolution(device: Device, precision: Precision, budget_s: float) -> float:
    dtype = precision.autocast_dtype or torch.float32

    def make(channels: int) -> Callable[[], object]:
        shapes = (IMAGES, channels, SIDE, SIDE), (channels, channels, KERNEL, KERNEL)
        images, weights = (
            torch.randn(shape, device=device.place)
            .to(dtype)
            .contiguous(memory_format=torch.channels_last)
            for shape in shapes
        )
        return lambda: nn.functional.conv2d(images, weights, padding=KERNEL // 2)

    def work(channels: int) -> float:
        return 2 * IMAGES * SIDE**2 * (channels * KERNEL) ** 2

    return highest_rate(Repeated(device, make), work, CHANNELS, budget_s=budget_s)


def _copy(device: Device, budget_s: float) -> float:
    def make(size: int) -> Callable[[], object]:
        source = torch.randn(size // 4, device=device.place)
        target = torch.empty_like(source)
        return lambda: target.copy_(source)

    return highest_rate(
        Repeated(device, make), lambda size: 2.0 * size, [COPIED_BYTES], budget_s=budget_s
    )


def _launch(device: Device, budget_s: float) -> float:
    one, clock = torch.ones((), device=device.place), device.clock()

    def block(launches: int) -> tuple[int, float]:
        clock.start()
        for _ in range(launches):
            one.neg_()
        wall_s, _ = clock.stop()
        host_s = clock.host_s()
        return 1, wall_s if host_s is None else host_s

    return highest_rate(block, float, [LAUNCHES], budget_s=budget_s)


def with_share(
    rates: dict[str, float], precision: Precision, device: Device
) -> tuple[dict[str, float], list[Verdict]]:
    """Return the rates of a step with the share of the device's ceiling that they are, if any.

    A share that cannot be told, or is above 100 %, is left out; a verdict that fails says why.
    """
    flop_per_s = rates["TFLOP/s"] * 1e12
    try:
        try:
            share = ceilings_of(device).share(flop_per_s, precision)
        except CeilingError:  # perhaps measured while the machine was busy
            share = ceilings_of(device, again=True).share(flop_per_s, precision)
    except CeilingError as error:
        return rates, [
            Verdict(
                gate=SHARE_GATE,
                outcome=Outcome.FAIL,
                figure=ABOVE if isinstance(error, AboveCeilingError) else "unknown",
                threshold=JUDGEABLE,
                reason=str(error),
            )
        ]
    return rates | ({} if share is None else {SHARE: share}), []


def note_shares(notes: Notes, tried: Sequence[LeverTried], *, flops: float, device: Device) -> None:
    """Note which share of the ceiling each lever's step does, with so many FLOPs a sample.

    All of the same ceiling, so it is asked twice: at first it may be measured again, and be higher.
    """
    wrong: dict[str, list[Verdict]] = {}
    for each in [*tried, *tried]:
        if each.samples_per_s is not None:
            rates = {"TFLOP/s": flops * each.samples_per_s / 1e12}
            rates, wrong[each.name] = with_share(rates, Precision(each.precision), device)
            each.share_of_ceiling = rates.get(SHARE)
    for verdicts in wrong.values():
        notes.gate(*verdicts)


def note_throughput(
    notes: Notes,
    arm: Arm,
    step_s: float,
    *,
    flops: float | None,
    device: Device | None,
) -> str:
    """Note what a step time means in samples, tokens and FLOPs a second; return it in a line.

    That is of all ranks together, each of which has samples of its own. With the share of the
    ceiling of `device`, which is one rank's, unless that is None.
    """
    rates = throughput_of(arm, step_s, flops=flops)
    if device is not None and flops is not None:
        rates, wrong = with_share(rates, arm.precision, device)
        notes.gate(*wrong)
        notes.keep("ceilings", asdict(ceilings_of(device)))
    together = len(ranks())
    rates = {name: rate * (1 if name == SHARE else together) for name, rate in rates.items()}
    notes.keep("throughput", rates)
    told = [f"{value:,.4g} {unit}" for unit, value in rates.items() if unit != SHARE]
    of_all = f" of {together} ranks together" if ranks().many else ""
    share = f", {rates[SHARE]:.1%} of this device's ceiling" if SHARE in rates else ""
    if unknown := notes.config.get("flops_unknown"):
        share = (
            f"; no share of a ceiling, since nobody knows the FLOPs of {', '.join(unknown)}: give"
            " `flops` to perfsuite.Training"
        )
    return f"{arm.label}: {step_s * 1e3:.4g} ms a step, {', '.join(told)}{of_all}{share}"
