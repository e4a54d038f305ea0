"""Is a rank slow, how well do several scale, and do they train as one does?"""

from perfsuite.benchmarks import test_rank_convergence, test_rank_scaling, test_rank_times
