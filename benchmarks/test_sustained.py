"""How long do hundreds of steps take without a wait between them, their stalls included?"""

from perfsuite.benchmarks import test_sustained
