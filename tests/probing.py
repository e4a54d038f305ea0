"""What tests of probes share."""

import torch

from perfsuite.judging.gates import Outcome, Verdict

CPU = torch.device("cpu")


def red(verdict: Verdict, figure: str) -> bool:
    """Tell whether a verdict is red because of what was found, and says what to do."""
    return verdict.outcome is Outcome.FAIL and figure in verdict.figure and bool(verdict.reason)
