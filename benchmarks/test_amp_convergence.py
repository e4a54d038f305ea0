"""The tutorial's second claim: mixed precision trains as well as fp32."""

from dataclasses import asdict

from perfsuite.bench import Bench
from perfsuite.convergence import judge, train_pairs
from perfsuite.precision import Precision


def test_amp_convergence(perf: Bench, amp: Precision) -> None:
    """Pairs of short runs from the same weights over the same batches must lose alike."""
    workload, asked = perf.workload, perf.thresholds.convergence
    pairs = train_pairs(
        workload,
        perf.real_digits,
        Precision.fp32,
        amp,
        seeds=range(workload.convergence_seeds),
        steps=workload.convergence_steps,
        clock=perf.clock,
        progress=perf.progress("training pairs of runs"),
    )
    perf.configure(seeds=workload.convergence_seeds, steps=workload.convergence_steps)
    perf.keep("pairs", [asdict(pair) for pair in pairs])
    perf.timed(pair.candidate.step_s for pair in pairs)
    perf.gate(*judge(pairs, asked))
