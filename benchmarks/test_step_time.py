"""How many seconds does a training step take, at each precision?"""

from perfsuite.benchmarks import test_step_time
