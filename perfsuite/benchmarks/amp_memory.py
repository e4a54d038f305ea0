"""Does mixed precision take less memory?"""

from dataclasses import asdict

from perfsuite import Bench, Estimate, Precision, activation_bytes_per_sample, at_most

FP32 = Precision.fp32
STEPS = 6


def test_amp_memory(perf: Bench, amp: Precision) -> None:
    """What autograd keeps for backward, on any device, and the peak on a GPU."""
    asked = perf.thresholds.memory
    perf.clock.start()
    kept = {each: activation_bytes_per_sample(perf.fresh(each)) for each in (FP32, amp)}
    perf.timed([perf.clock.stop()[0]])
    perf.keep("activation_bytes_per_sample", kept)
    perf.metric("activation_bytes_per_sample", kept[amp], unit="B", better="lower")
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
