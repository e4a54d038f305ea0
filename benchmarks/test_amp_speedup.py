"""Does a mixed-precision step take less time?"""

from perfsuite.benchmarks import test_amp_speedup
