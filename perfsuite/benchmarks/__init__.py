"""The standard benchmarks, which judge any training: `from perfsuite.benchmarks import *`."""

from perfsuite.benchmarks.amp_convergence import test_amp_convergence
from perfsuite.benchmarks.amp_memory import test_amp_memory
from perfsuite.benchmarks.amp_probes import test_amp_probes
from perfsuite.benchmarks.amp_speedup import test_amp_speedup
from perfsuite.benchmarks.each_rank import test_rank_times
from perfsuite.benchmarks.rank_convergence import test_rank_convergence
from perfsuite.benchmarks.rank_scaling import test_rank_scaling
from perfsuite.benchmarks.step_ledger import test_ledger
from perfsuite.benchmarks.step_time import test_step_time
from perfsuite.benchmarks.sustained import test_sustained

# In the order in which they run: what takes long comes last, and a first verdict within seconds.
__all__ = [  # noqa: RUF022  # not by the alphabet
    "test_ledger",
    "test_amp_memory",
    "test_amp_probes",
    "test_step_time",
    "test_amp_speedup",
    "test_rank_times",
    "test_rank_scaling",
    "test_sustained",
    "test_amp_convergence",
    "test_rank_convergence",
]
