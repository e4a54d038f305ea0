"""Who was busy, the host or the device, by three readings of a step: pure functions.

A step is launched by the host, kernel by kernel, and computed by the device. Where launching takes
longer the device waits, and whatever is said of the step's time is said of the host.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from perfsuite.judging.blocks import Block
from perfsuite.judging.gates import Outcome, Verdict, not_gated
from perfsuite.judging.throttling import sift

GATE = "host_bound"
WORD = "HOST-BOUND"
MOST_IDLE = 0.15
"""Share of a step in which the device may have nothing to do; the rest is its kernels'."""
LEAST_HOST = 0.5
"""Share of a step for which the host launches, at least, if it is the host that was waited for."""
EARLY_HOST = 0.7
"""A host that has launched everything by this share of the time was well ahead of the device."""
_HELP = "a larger batch, CUDA graphs (graph=True of the training) or torch.compile would help"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernels:
    """What a step, or some steps, launched on the device."""

    kernel_s: float  # sum of their times, also of those that ran at once
    launches: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How the time of an arm's step was spent; seconds a step.

    Attributes:
        host_s: until the last launch returned.
        device_s: between two events, gaps between kernels included.
        kernel_s: the sum of its kernels' times, None where those cannot be told.
        held_back: whether the device was throttled in most of what was timed; its kernels, which
            are not, then say nothing of how long it idled.
    """

    label: str
    host_s: float
    device_s: float
    kernel_s: float | None
    launches: float | None = None
    held_back: bool = False

    @property
    def idle(self) -> float | None:
        """The share of the step in which the device had nothing to do; None if unknown."""
        if self.kernel_s is None or self.held_back:
            return None
        return max(0.0, 1 - self.kernel_s / self.device_s)

    @property
    def host_bound(self) -> bool | None:
        """Whether the device waited for the host; None if unknown."""
        launching = self.host_s / self.device_s
        if self.idle is not None:
            return self.idle > MOST_IDLE and launching > LEAST_HOST
        # A host that is late may have waited for a place in the queue of a busy device.
        return False if launching < EARLY_HOST else None

    @property
    def keeps_busy(self) -> bool:
        """Whether it is known that the device is the limit."""
        return self.host_s / self.device_s < EARLY_HOST or self.host_bound is False

    def __str__(self) -> str:
        kernels = "unknown" if self.kernel_s is None else _ms(self.kernel_s)
        times = f"host {_ms(self.host_s)}, kernels {kernels} of {_ms(self.device_s)}"
        idles = "" if self.idle is None else f"idle {self.idle:.0%} of a step, "
        return f"{self.label} {idles}{times}"


def load_of(label: str, blocks: Sequence[Block], kernels: Kernels | None) -> Load | None:
    """Return an arm's load by the medians of its blocks; None where host and device are one."""
    timed = [(b.host_s, b.device_s) for b in blocks if b.host_s is not None and b.device_s]
    if not timed:
        return None
    host_s, device_s = (median(times_s) for times_s in zip(*timed, strict=True))
    return Load(
        label=label,
        host_s=host_s,
        device_s=device_s,
        kernel_s=None if kernels is None else kernels.kernel_s,
        launches=None if kernels is None else kernels.launches,
        held_back=not sift(blocks, lambda block: bool(block.throttled)).decides,
    )


def judge_host(loads: Sequence[Load]) -> Verdict:
    """Say of arms whether the device waited for the host; that fails nothing, and is shown."""
    figure = "; ".join(map(str, loads))
    if bound := [load.label for load in loads if load.host_bound]:
        reason = f"in {' and '.join(bound)} the device waits for the host: a step's time is the"
        reason += f" host's, and a slower kernel does not show in it; {_HELP}"
        return Verdict(
            gate=GATE,
            outcome=Outcome.NOT_GATED,
            word=WORD,
            figure=figure,
            threshold="",
            reason=reason,
        )
    if any(load.host_bound is None for load in loads):
        why = "its kernels could not be timed"
        if any(load.held_back for load in loads):
            why = "it was held back most of the time"
        why = f"whether the device waits for the host is unknown: {why}"
        return not_gated(GATE, figure, why)
    if any(load.idle is not None and load.idle > MOST_IDLE for load in loads):
        why = "the device idles, and not for the host, which has launched everything early"
        return not_gated(GATE, figure, why)
    return Verdict(
        gate=GATE,
        outcome=Outcome.PASS,
        figure=figure,
        threshold=f"idle at most {MOST_IDLE:.0%} of a step",
    )


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.4g} ms"
