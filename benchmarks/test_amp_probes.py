"""Is mixed precision really on, and applied rightly? Asked before any speed-up is believed."""

from perfsuite.benchmarks import test_amp_probes
