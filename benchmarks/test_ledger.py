"""What does a training step do? Counted, so that it is the same on every machine."""

from perfsuite.benchmarks import test_ledger
