"""The tutorial's third claim: mixed precision takes less memory."""

from dataclasses import asdict

from perfsuite import Bench, Estimate, Precision, activation_bytes, at_most

FP32 = Precision.fp32
STEPS = 6


def test_amp_memory(perf: Bench, amp: Precision) -> None:
    """What autograd keeps for backward, on any device, and the peak on a GPU."""
    asked = perf.thresholds.memory
    perf.clock.start()
    kept = {precision: activation_bytes_per_image(perf, precision) for precision in (FP32, amp)}
    perf.timed([perf.clock.stop()[0]])
    perf.keep("activation_bytes_per_image", kept)
    perf.metric("activation_bytes_per_image", kept[amp], unit="B", better="lower")
    ratio = Estimate.exact(kept[amp] / kept[FP32])
    perf.gate(at_most("activation_ratio", ratio, asked.max_activation_ratio))

    peaks = {
        precision: peak
        for precision in (FP32, amp)
        if (peak := perf.peak_memory(precision, steps=STEPS)) is not None
    }
    if peaks:  # a CPU counts none
        perf.keep("peaks", {precision: asdict(peak) for precision, peak in peaks.items()})
        perf.metric("peak_bytes", peaks[amp].allocated_bytes, unit="B", better="lower")
        ratio = Estimate.exact(peaks[amp].allocated_bytes / peaks[FP32].allocated_bytes)
        perf.gate(at_most("peak_ratio", ratio, asked.max_peak_ratio))


def activation_bytes_per_image(perf: Bench, precision: Precision) -> float:
    """Return how the bytes kept grow with the batch, which leaves copies of weights out."""
    sizes = (perf.workload.batch_size, 2 * perf.workload.batch_size)
    small, large = (
        activation_bytes(
            perf.workload.step(precision, perf.device, seed=0),
            *next(perf.digits.batches(size, seed=0)),
        )
        for size in sizes
    )
    return (large - small) / (sizes[1] - sizes[0])
