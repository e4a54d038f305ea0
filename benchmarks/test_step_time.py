"""How many seconds does a training step take, at each precision?"""

from perfsuite import Bench, Precision, median_s

BLOCKS = 20


def test_step_time(perf: Bench, precision: Precision) -> None:
    """Batches lie on the device, so the time is the step's alone."""
    arm = perf.arm(precision)
    blocks = perf.time(arm, blocks=BLOCKS)
    perf.metric("step_s", median_s([b.step_s for b in blocks]), unit="s", better="lower")
    perf.profile(arm)
