"""Does mixed precision train as well as fp32?"""

from perfsuite.benchmarks import test_amp_convergence
