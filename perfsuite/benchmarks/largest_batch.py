"""How large a batch fits into memory, in fp32 and in mixed precision?"""

import pytest

from perfsuite import Bench, Estimate, Fits, LargestBatch, Precision, at_least, largest_batches

FP32 = Precision.fp32


@pytest.mark.one_rank
@pytest.mark.when_named
@pytest.mark.one_tree
def test_largest_batch(perf: Bench, perf_fits: Fits, amp: Precision) -> None:
    """Each batch is tried in a fresh process, under one limit for both precisions."""
    perf.clock.start()
    found = largest_batches(perf, perf_fits, [FP32, amp])
    perf.timed([perf.clock.stop()[0]])
    perf.show(table(perf, found))
    ratio = Estimate.no_answer(f"no batch fits in {FP32}: there is nothing to hold {amp} against")
    if found[FP32].samples:
        ratio = Estimate.exact(found[amp].samples / found[FP32].samples)
    if found[amp].samples:
        perf.metric("largest_batch", found[amp].samples, unit="samples", better="higher")
    perf.gate(at_least("largest_batch", ratio, perf.thresholds.memory.min_largest_batch))


def table(perf: Bench, found: dict[Precision, LargestBatch]) -> str:
    """Return the peak of each batch that was tried in both precisions, and the largest."""
    both = sorted(set.intersection(*({*each.tries} for each in found.values())))
    lines = [
        f"{perf.workload.name}: largest batch, and peak by batch",
        "samples" + "".join(f"{precision:>14}" for precision in found),
    ]
    for samples in both:
        peaks = (each.tries[samples].peak_bytes for each in found.values())
        cells = ("too large" if peak is None else f"{peak / 2**20:,.0f} MiB" for peak in peaks)
        lines.append(f"{samples:>7}" + "".join(f"{cell:>14}" for cell in cells))
    lines.append("largest" + "".join(f"{each.samples:>14,}" for each in found.values()))
    return "\n".join(lines)
