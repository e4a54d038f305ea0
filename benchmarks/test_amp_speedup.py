"""The tutorial's first claim: a mixed-precision step takes less time."""

from perfsuite.bench import Bench
from perfsuite.gates import at_least
from perfsuite.precision import Precision
from perfsuite.stats import paired_ratio

QUADS = 8


def test_amp_speedup(perf: Bench, amp: Precision, reference: Precision) -> None:
    """Both take turns in one process, so that what slows the machine slows both."""
    turns = perf.duet(perf.arm(reference), perf.arm(amp), quads=QUADS)
    asked = perf.thresholds.amp_speedup
    speedup = paired_ratio(
        turns.quad_times_s("A"), turns.quad_times_s("B"), confidence=asked.confidence
    )
    perf.metric("speedup", speedup.value, unit="x", better="higher")
    perf.gate(at_least("amp_speedup", speedup, asked.minimum(amp, reference)))
    if speedup.high < 1:
        slower = 1 / speedup.value
        name = perf.machine.hardware.name
        perf.show(f"{amp} is {slower:.1f} times slower than {reference} on {name}: it does not pay")
