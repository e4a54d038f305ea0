"""The tutorial's third claim: mixed precision takes less memory."""

from dataclasses import asdict
from itertools import islice

from perfsuite.bench import Bench
from perfsuite.gates import at_most
from perfsuite.memory import activation_bytes, peak_memory
from perfsuite.precision import Precision
from perfsuite.stats import Estimate

STEPS = 6


def test_memory(perf: Bench, amp: Precision) -> None:
    """What autograd keeps for backward, on any device, and the peak on a GPU."""
    asked = perf.thresholds.memory
    batches = list(islice(perf.digits.batches(perf.workload.batch_size, 0), STEPS))
    perf.clock.start()
    kept = {
        precision: activation_bytes(perf.workload.step(precision, perf.device, 0), *batches[0])
        for precision in (Precision.fp32, amp)
    }
    perf.timed([perf.clock.stop()[0]])
    perf.keep("activation_bytes", kept)
    perf.metric("activation_bytes", kept[amp], unit="B", better="lower")
    ratio = Estimate.exact(kept[amp] / kept[Precision.fp32])
    perf.gate(at_most("activation_ratio", ratio, asked.max_activation_ratio))

    if perf.device.type == "cuda":
        peaks = {
            precision: peak_memory(perf.workload, precision, batches)
            for precision in (Precision.fp32, amp)
        }
        perf.keep("peaks", {precision: asdict(peak) for precision, peak in peaks.items()})
        perf.metric("peak_bytes", peaks[amp].allocated_bytes, unit="B", better="lower")
        ratio = Estimate.exact(
            peaks[amp].allocated_bytes / peaks[Precision.fp32].allocated_bytes
        )
        perf.gate(at_most("peak_ratio", ratio, asked.max_peak_ratio))
