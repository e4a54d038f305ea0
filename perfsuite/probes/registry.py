"""Probes: is mixed precision really happening, and is it applied rightly?

With Adam a comparison of losses is blind to most faults of mixed precision, because Adam does
not care by what factor its gradients are wrong. So each probe looks at the structure of a step.
Any step will do that has what `ProbedStep` lists.
"""

import textwrap
from collections.abc import Sequence

from perfsuite.devices.precision import Precision
from perfsuite.judging.gates import Outcome, Verdict
from perfsuite.probes.dtypes import (
    arithmetic,
    autocast_in_backward,
    layer_dtypes,
    loss_dtype,
    memory_format,
)
from perfsuite.probes.gradients import fresh_gradients, gradients, loss_scale
from perfsuite.probes.optimizer import sgd_canary, skipped_step, step_count
from perfsuite.probes.probe import Batch, Probe, StepFactory, verdict
from perfsuite.probes.resources import host_waits, memory_slope

PROBES: tuple[Probe, ...] = (
    layer_dtypes,
    loss_dtype,
    arithmetic,
    autocast_in_backward,
    memory_format,
    loss_scale,
    gradients,
    fresh_gradients,
    step_count,
    skipped_step,
    sgd_canary,
    host_waits,
    memory_slope,
)


def run_probe(probe: Probe, make_step: StepFactory, precision: Precision, batch: Batch) -> Verdict:
    """Return the probe's verdict, and a FAIL that names the error if the step raises one.

    So a step that crashes is told as one line, and the other probes still report.
    """
    try:
        return probe(make_step, precision, batch)
    except Exception as error:
        message = str(error).strip().partition("\n")[0]
        said = type(error).__name__ + (f": {message}" if message else "")
        return verdict(
            probe.__name__,
            f"raised {textwrap.shorten(said, 200, placeholder=' ...')}",
            "a step that runs to its end",
            good=False,
        )


def judge_probes(verdicts: Sequence[Verdict]) -> tuple[Verdict, ...]:
    """Return the verdicts that are red, or a single one that says that all probes passed."""
    red = tuple(each for each in verdicts if each.outcome is not Outcome.PASS)
    summary = f"{len(verdicts)} probes passed"
    return red or (verdict("all", summary, "all probes passed", good=bool(verdicts)),)
