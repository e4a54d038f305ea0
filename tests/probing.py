"""What tests of probes share."""

from collections.abc import Iterable
from typing import Any

import torch

from perfsuite.devices.precision import Precision
from perfsuite.judging.gates import Outcome, Verdict
from perfsuite.probes.probe import MakeArm, Probe
from perfsuite.probes.registry import PROBES, run_probe
from perfsuite.training.arm import Arm
from perfsuite.training.workload import Workload

CPU = torch.device("cpu")


def red(verdict: Verdict, figure: str) -> bool:
    """Tell whether a verdict is red because of what was found, and says what to do."""
    return verdict.outcome is Outcome.FAIL and figure in verdict.figure and bool(verdict.reason)


def not_passed(workload: Workload, precision: Precision) -> list[str]:
    """Return the verdicts of the probes of a workload's first batch that are not PASS."""
    (batch,) = workload.arm(precision, CPU).take(1)

    def make(precision: Precision) -> Arm:
        return workload.arm(precision, CPU)

    return not_passed_by(make, precision, batch, PROBES)


def not_passed_by(
    make: MakeArm, precision: Precision, batch: Any, probes: Iterable[Probe]
) -> list[str]:
    """Return the verdicts of probes that are not PASS."""
    verdicts = [run_probe(probe, make, precision, batch) for probe in probes]
    return [str(verdict) for verdict in verdicts if verdict.outcome is not Outcome.PASS]
