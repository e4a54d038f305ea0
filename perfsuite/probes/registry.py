"""Probes: is mixed precision really happening, and is it applied rightly?

With Adam a comparison of losses is blind to most faults of mixed precision, because Adam does
not care by what factor its gradients are wrong. So each probe looks at the structure of a step.
Any training will do: what it does not show is not looked at.
"""

import textwrap
import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from perfsuite.devices.precision import Precision
from perfsuite.devices.ranks import ranks
from perfsuite.judging.gates import Outcome, Verdict
from perfsuite.probes.across_ranks import ACROSS_RANKS
from perfsuite.probes.captured import graphed_step
from perfsuite.probes.dtypes import (
    arithmetic,
    autocast_in_backward,
    layer_dtypes,
    loss_dtype,
    memory_format,
)
from perfsuite.probes.evaluating import evaluation, modes
from perfsuite.probes.gradients import accumulation, fresh_gradients, gradients, loss_scale
from perfsuite.probes.optimizer import schedule, sgd_canary, skipped_step, step_count
from perfsuite.probes.outcomes import averages, buffers, trained_parameters, update
from perfsuite.probes.probe import MakeArm, Probe
from perfsuite.probes.products import exact_products, product_dtypes
from perfsuite.probes.randomness import random_numbers
from perfsuite.probes.resources import equal_seeds, host_waits, memory_slope, restored_state

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
    # These share two traced steps ...
    product_dtypes,
    exact_products,
    random_numbers,
    # ... and these a precision that is led along fp32's way.
    update,
    averages,
    buffers,
    trained_parameters,
    evaluation,
    modes,
    schedule,
    accumulation,
    host_waits,
    memory_slope,
    equal_seeds,
    restored_state,
    graphed_step,
)
"""All probes of one rank, in the order in which they are asked."""
_OF_PROBES = Path(__file__).parent
_OF_TORCH = Path(torch.__file__).parent


def probes_here() -> tuple[Probe, ...]:
    """Return the probes to be asked: where there are several ranks, those across them too."""
    return PROBES + ACROSS_RANKS * ranks().many


def run_probe(probe: Probe, make: MakeArm, precision: Precision, batch: Any) -> Verdict:
    """Return the probe's verdict, and a FAIL that names the error if the step raises one.

    So a step that crashes is told as one line, and the other probes still report. Whatever is
    compiled runs as it was written, or no hook would be called. Of several ranks, which look
    together, all return the worst verdict.
    """
    own = _verdict(probe, make, precision, batch)
    told = ranks().each(own)
    while not all(isinstance(each, Verdict) for each in told):
        # Others came from a meeting within the probe, see `told_by_all`: they end it now.
        told = ranks().each(own)
    worst = min(told, key=lambda verdict: verdict.outcome.rank)
    rank = told.index(worst)
    return replace(worst, figure=f"rank {rank}: {worst.figure}") if rank else worst


def _verdict(probe: Probe, make: MakeArm, precision: Precision, batch: Any) -> Verdict:
    try:
        with torch.compiler.set_stance("force_eager"):
            return probe(make, precision, batch)
    except Exception as error:
        message = str(error).strip().partition("\n")[0]
        said = type(error).__name__ + (f": {message}" if message else "")
        of_probe = _raised_by_probe(error)
        return Verdict(
            gate=f"probe {probe.name}",
            outcome=Outcome.INCONCLUSIVE if of_probe else Outcome.FAIL,
            figure=f"raised {textwrap.shorten(said, 200, placeholder=' ...')}",
            threshold="a step that can be looked into"
            if of_probe
            else "a step that runs to its end",
            reason="the probe failed, and not the step: please report it" * of_probe,
        )


def _raised_by_probe(error: Exception) -> bool:
    """Tell whether it was a probe's own code that failed, by the innermost that is not torch's."""
    files = [Path(frame.filename) for frame in traceback.extract_tb(error.__traceback__)]
    own = [file for file in files if not file.is_relative_to(_OF_TORCH)]
    return own[-1].parent == _OF_PROBES


def judge_probes(verdicts: Sequence[Verdict]) -> tuple[Verdict, ...]:
    """Return the verdicts that are red, or one that says how many passed; and those not gated."""
    open_ = tuple(each for each in verdicts if each.outcome is Outcome.NOT_GATED)
    red = tuple(e for e in verdicts if e.outcome not in (Outcome.PASS, Outcome.NOT_GATED))
    if red or len(verdicts) == len(open_) > 0:
        return (*red, *open_)
    passed = len(verdicts) - len(open_)
    summary = Verdict(
        gate="probe all",
        outcome=Outcome.PASS if passed else Outcome.FAIL,
        figure=f"{passed} probes passed",
        threshold="all probes passed",
    )
    return (summary, *open_)
