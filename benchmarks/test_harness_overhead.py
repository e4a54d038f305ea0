"""What does measuring cost? Our step against a bare loop that anyone would write by hand."""

from torch import Tensor, nn

from perfsuite.bench import Bench
from perfsuite.gates import at_most
from perfsuite.precision import Precision
from perfsuite.stats import Estimate, median_s, paired_ratio
from perfsuite.step import TrainStep
from perfsuite.timing import duet
from perfsuite.workload import Arm

BLOCKS, QUADS, MICRO_STEPS = 10, 60, 20


def test_harness_overhead(perf: Bench) -> None:
    """The harness adds the same few microseconds to every step, whatever the step does.

    On the workload they drown in the noise of its step. So they are measured on a step that
    does next to nothing, and then held against the workload's own step time.
    """
    step_s = median_s([b.step_s for b in perf.time(perf.arm(Precision.fp32), blocks=BLOCKS)])
    model = nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 10)).to(perf.device)
    step = TrainStep(model, perf.workload.make_optimizer(model.parameters()))

    def bare(images: Tensor, labels: Tensor) -> Tensor:
        step.optimizer.zero_grad(set_to_none=True)
        loss = nn.functional.cross_entropy(step.model(images), labels)
        loss.backward()
        step.optimizer.step()
        return loss.detach()

    start, order = step.snapshot(), perf.digits.batches(perf.workload.batch_size, seed=0)
    by_hand, ours = (
        Arm(precision=Precision.fp32, step=run, order=order, restore=lambda: step.restore(start))
        for run in (bare, step)
    )
    perf.warm("by hand", by_hand)
    perf.warm("harness", ours)
    show = perf.progress("harness and bare loop in turns")
    turns = duet(by_hand, ours, perf.clock, quads=QUADS, steps=MICRO_STEPS, progress=show)

    asked = perf.thresholds.harness_overhead
    bare_s = turns.quad_times_s("A")
    ratio = paired_ratio(turns.quad_times_s("B"), bare_s, confidence=asked.confidence)
    share = median_s(bare_s) / step_s
    perf.keep("micro", {"bare_s": bare_s, "harness_s": turns.quad_times_s("B"), "step_s": step_s})
    overhead = Estimate(
        value=(ratio.value - 1) * share,
        low=(ratio.low - 1) * share,
        high=(ratio.high - 1) * share,
        confidence=ratio.confidence,
        n=ratio.n,
    )
    perf.gate(at_most("harness_overhead", overhead, asked.max, unit=" of a step"))
