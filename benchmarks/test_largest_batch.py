"""How large a batch fits into memory, in fp32 and in mixed precision?"""

from perfsuite.benchmarks.largest_batch import test_largest_batch
