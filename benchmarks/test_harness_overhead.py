"""What does measuring cost? Our step against a bare loop that anyone would write by hand."""

from torch import Tensor, nn

from perfsuite.bench import Bench
from perfsuite.gates import at_most
from perfsuite.precision import Precision, backend_flags
from perfsuite.stats import Estimate, paired_ratio
from perfsuite.workload import Arm

QUADS = 30


def test_harness_overhead(perf: Bench) -> None:
    """Both step the same model with the same optimizer, so that only the harness differs."""
    step = perf.workload.step(Precision.fp32, perf.device, seed=0)

    def bare(images: Tensor, labels: Tensor) -> Tensor:
        step.optimizer.zero_grad(set_to_none=True)
        loss = nn.functional.cross_entropy(step.model(images), labels)
        loss.backward()
        step.optimizer.step()
        return loss.detach()

    start = step.snapshot()
    order = perf.digits.batches(perf.workload.batch_size, seed=0)
    arms = {
        label: Arm(
            precision=Precision.fp32,
            step=run,
            order=order,
            restore=lambda: step.restore(start),
        )
        for label, run in (("bare", bare), ("harness", step))
    }
    with backend_flags(Precision.fp32):
        for label, arm in arms.items():
            perf.warm(label, arm)
        turns = perf.duet(arms["bare"], arms["harness"], quads=QUADS)

    asked = perf.thresholds.harness_overhead
    ratio = paired_ratio(
        turns.quad_times_s("B"), turns.quad_times_s("A"), confidence=asked.confidence
    )
    overhead = Estimate(
        value=ratio.value - 1,
        low=ratio.low - 1,
        high=ratio.high - 1,
        confidence=ratio.confidence,
        n=ratio.n,
    )
    perf.gate(at_most("harness_overhead", overhead, asked.max, unit=""))
