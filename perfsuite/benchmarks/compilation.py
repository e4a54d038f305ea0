"""How long does torch.compile keep the first step waiting, and does it compile what is written?"""

import pytest

from perfsuite import Bench, FreshProcess, Precision, compiled_step, first_steps, run_probe


@pytest.mark.one_rank
@pytest.mark.when_named
def test_compilation(perf: Bench, amp: Precision, fresh_process: FreshProcess) -> None:
    """Two fresh processes take the first step, the second one with the caches of the first."""
    if first_steps(perf, amp, fresh_process) and perf.turns.two_arms:
        (batch,) = perf.fresh(amp).take(1)
        perf.gate(run_probe(compiled_step, perf.fresh, amp, batch))
