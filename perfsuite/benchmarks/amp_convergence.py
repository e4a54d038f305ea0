"""Does mixed precision train as well as fp32?"""

from collections.abc import Sequence
from dataclasses import asdict

from perfsuite import Bench, Precision, SeedPair, judge_twice, train_pairs


def test_amp_convergence(perf: Bench, amp: Precision) -> None:
    """Pairs of short runs from the same weights over the same batches must lose alike."""
    workload = perf.workload
    perf.require_learnable()

    def train(seeds: Sequence[int]) -> tuple[SeedPair, ...]:
        return train_pairs(
            perf.fresh,
            Precision.fp32,
            amp,
            seeds=seeds,
            steps=workload.convergence_steps,
            clock=perf.clock,
            progress=perf.progress("training pairs of runs"),
        )

    pairs, verdicts = judge_twice(train, workload.convergence_seeds, perf.thresholds.convergence)
    perf.configure(seeds=workload.convergence_seeds, steps=workload.convergence_steps)
    perf.keep("precisions", {"reference": Precision.fp32, "candidate": amp})
    perf.keep("pairs", [asdict(pair) for pair in pairs])
    perf.timed(pair.candidate.step_s for pair in pairs)
    perf.gate(*verdicts)
