"""Is mixed precision really on, and applied rightly? Asked before any speed-up is believed."""

from dataclasses import asdict

import pytest

from perfsuite.devices.precision import Precision
from perfsuite.measuring.bench import Bench
from perfsuite.probes.registry import PROBES, judge, run


@pytest.mark.one_tree
def test_amp_probes(perf: Bench, precision: Precision) -> None:
    """A few steps on one batch, looked into from many sides."""
    batch = next(perf.digits.batches(perf.workload.batch_size, seed=0))
    perf.clock.start()
    verdicts = [
        run(probe, lambda each: perf.workload.step(each, perf.device, seed=0), precision, batch)
        for probe in PROBES
    ]
    perf.timed([perf.clock.stop()[0]])
    perf.keep("probes", [asdict(verdict) for verdict in verdicts])
    perf.gate(*judge(verdicts))
