"""How many seconds does a training step take, at each precision?"""

from perfsuite import Bench, Precision, median_s

BLOCKS = 20


def test_step_time(perf: Bench, precision: Precision) -> None:
    """Batches lie on the device, so the time is the step's alone."""
    arm = perf.arm(precision)
    blocks = perf.time(arm, blocks=BLOCKS)
    step_s = median_s([block.step_s for block in blocks])
    perf.metric("step_s", step_s, unit="s", better="lower")
    for load in perf.loads((arm, blocks)):  # none on a CPU
        if load.kernel_s is not None:
            # Of its own: a slower kernel does not show in a step that waits for its host.
            perf.metric("kernel_s", load.kernel_s, unit="s", better="lower")
    perf.throughput(arm, step_s)
    perf.profile(arm)
