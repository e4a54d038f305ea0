"""Is mixed precision really on, and applied rightly? Asked before any speed-up is believed."""

from dataclasses import asdict

import pytest

from perfsuite import Bench, Precision, judge_probes, probes_here, run_probe


@pytest.mark.one_tree
def test_amp_probes(perf: Bench, precision: Precision) -> None:
    """A few steps on one batch, looked into from many sides."""
    (batch,) = perf.fresh(precision).take(1)
    perf.clock.start()
    verdicts = [run_probe(probe, perf.fresh, precision, batch) for probe in probes_here()]
    perf.timed([perf.clock.stop()[0]])
    perf.keep("probes", [asdict(verdict) for verdict in verdicts])
    perf.gate(*judge_probes(verdicts))
