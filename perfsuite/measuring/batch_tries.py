"""The largest batch that fits into a memory, by precision, each tried in a fresh process."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from perfsuite.devices.precision import Precision
from perfsuite.judging.fitting import Attempt, Fits, Tried, largest
from perfsuite.training.batches import TrainingError

if TYPE_CHECKING:
    from perfsuite.measuring.bench import Bench

STEPS = 2
"""Of a try: the first makes the optimizer's state, and the second has to live beside it."""
TIMES = 8
"""On a device that shares the host's memory the limit is what float32 takes for so many times its
own batch, rounded up to a power of two: how large the machine is would say more of it than of the
training. Rounded, it is the same for the next run, though a peak is not the same twice."""
MOST = 2**20  # samples


@dataclass(kw_only=True)
class LargestBatch:
    """What one precision's tries have shown."""

    samples: int = 0  # of the largest batch that fits; 0: none does
    tries: dict[int, Tried] = field(default_factory=dict)  # by samples, in the order of trying

    def record(self) -> dict[str, Any]:
        """Return all of it for the run's JSON."""
        return {
            "samples": self.samples,
            "tries": [{"samples": n, **asdict(tried)} for n, tried in self.tries.items()],
        }


def largest_batches(
    perf: "Bench", fits: Fits, precisions: Sequence[Precision]
) -> dict[Precision, LargestBatch]:
    """Return the largest batch of each precision under one limit, which the first one decides.

    An accelerator's limit is its memory. See TIMES for a CPU's. It is part of what was measured,
    and where runs were promoted it is as it was for them.
    """
    arm = perf.fresh(precisions[0])
    own = arm.samples(*arm.take(1))
    del arm
    perf.machine.device.free_cache()  # the tries share its memory
    limit_bytes = _limit_bytes(perf, fits, precisions[0], own)
    found = {
        precision: _largest(perf, fits, precision, limit_bytes=limit_bytes, own=own)
        for precision in precisions
    }
    perf.configure(limit_bytes=limit_bytes)
    perf.keep("largest_batches", {str(p): each.record() for p, each in found.items()})
    return found


def _limit_bytes(perf: "Bench", fits: Fits, precision: Precision, own: int) -> int:
    promoted: int | None = perf.promoted.get("limit_bytes")
    if promoted is not None:
        return promoted
    of_device = perf.machine.hardware.memory_bytes
    if of_device is not None and not perf.machine.device.computes_on_host:
        return of_device
    samples = TIMES * own
    tried = fits(Attempt(precision=precision, samples=samples, limit_bytes=None))
    if tried.peak_bytes is None:
        raise TrainingError(f"a batch of {samples} in {precision} has no room: {tried.why_not}")
    return int(2 ** math.ceil(math.log2(tried.peak_bytes)))


def _largest(
    perf: "Bench", fits: Fits, precision: Precision, *, limit_bytes: int, own: int
) -> LargestBatch:
    found = LargestBatch()

    def fit(samples: int) -> bool:
        attempt = Attempt(precision=precision, samples=samples, limit_bytes=limit_bytes)
        perf.turns.show(f"trying {samples} samples in {precision}", 0, 1)
        found.tries[samples] = fits(attempt)
        return found.tries[samples].fits

    found.samples = largest(fit, own, most=MOST)
    return found


def try_batch(perf: "Bench", attempt: Attempt) -> Tried:
    """Train for STEPS with such batches, in this very process, which is confined from now on."""
    device = perf.machine.device
    peak_bytes = device.confine(attempt.limit_bytes)
    try:
        arm = perf.workload.arm(Precision(attempt.precision), perf.device).resized(attempt.samples)
        # Between two readings of the clock: of a simulated device no other step takes memory.
        perf.clock.start()
        try:
            for batch in arm.take(STEPS):
                arm.step(batch)
        finally:
            perf.clock.stop()
    except Exception as error:
        if not device.ran_out(error):
            raise
        why = str(error).partition("\n")[0] or type(error).__name__
        return Tried(peak_bytes=None, why_not=why)
    return Tried(peak_bytes=peak_bytes())
