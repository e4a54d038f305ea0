"""The standard benchmarks of perfsuite, which judge the training in conftest.py."""

from perfsuite.benchmarks import *  # noqa: F403
