"""What does a training step do? Counted, so that it is the same on every machine."""

from dataclasses import asdict

import pytest

from perfsuite import Bench, Precision, count_step


@pytest.mark.one_rank
def test_ledger(perf: Bench, precision: Precision) -> None:
    """Operators, casts, FLOPs, bytes and host reads must be as accepted in ledgers/."""
    perf.clock.start()
    # Not `fresh`, which takes a step of a whole batch to tell what is trained: the ledger does.
    arm = perf.workload.arm(precision, perf.device)
    if (few := perf.workload.ledger_samples) is not None:
        arm = arm.resized(few)
    ledger = count_step(arm, workload=perf.workload.name)
    perf.timed([perf.clock.stop()[0]])
    perf.keep("ledger", asdict(ledger))
