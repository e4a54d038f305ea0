"""Which levers help the step of this suite on this device?"""

from perfsuite.benchmarks.step_advice import test_step_advice
