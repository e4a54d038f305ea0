"""Does mixed precision take less memory?"""

from perfsuite.benchmarks import test_amp_memory
