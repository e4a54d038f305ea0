"""Healthy steps pass every probe, and what a session is told of all of them.

The faults that probes are there for are in the catalogue of tests/sabotage."""

import probing
import pytest
from probing import CPU
from sabotage import environments as env
from sabotage import steps
from torch import Tensor

from perfsuite.devices.precision import Precision
from perfsuite.judging.gates import Outcome
from perfsuite.probes import registry, resources
from perfsuite.probes.captured import graphed_step
from perfsuite.probes.probe import Probe
from perfsuite.probes.registry import PROBES
from perfsuite.training.step import TrainStep

pytestmark = pytest.mark.usefixtures("narrow_head")

HEALTHY = (TrainStep, steps.ClippingUnscaledGradients)


@pytest.mark.parametrize("kind", HEALTHY, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("precision", [Precision.fp32, Precision.bf16, Precision.fp16])
def test_a_healthy_step_passes(
    kind: type[TrainStep], precision: Precision, batch: env.Batch
) -> None:
    make = env.factory(kind, CPU)
    # Clipping reads the scaler's overflow flag on the host, as it must.
    reads = kind is steps.ClippingUnscaledGradients
    probes = [probe for probe in PROBES if not (reads and probe is resources.host_waits)]
    assert probing.not_passed_by(make, precision, batch, probes) == []


def test_all_that_passed_is_one_line_and_what_failed_is_told(batch: env.Batch) -> None:
    good, bad = (
        [registry.run_probe(probe, make, Precision.bf16, batch) for probe in PROBES]
        for make in (env.factory(kind, CPU) for kind in (TrainStep, steps.BackwardUnderAutocast))
    )
    (passed,) = registry.judge_probes(good)
    assert str(passed) == "PASS probe all: 27 probes passed; required: all probes passed"
    assert [each.gate for each in registry.judge_probes(bad)] == ["probe autocast_in_backward"]
    assert registry.judge_probes([])[0].outcome is Outcome.FAIL


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            RuntimeError("no room\nfor details"),
            "raised RuntimeError: no room; required: a step that runs to its end",
        ),
        (AssertionError(), "raised AssertionError; required: a step that runs to its end"),
    ],
    ids=["message", "none"],
)
@pytest.mark.parametrize(
    "probe",
    [each for each in PROBES if each is not graphed_step],  # it takes no step unless asked to
    ids=lambda probe: probe.name,
)
def test_a_step_that_crashes_is_a_verdict_that_names_it(
    probe: Probe, error: Exception, told: str, batch: env.Batch
) -> None:
    class Crashing(TrainStep):
        def __call__(self, batch: tuple[Tensor, Tensor]) -> Tensor:  # noqa: ARG002  # as a step is called
            raise error

    verdict = registry.run_probe(probe, env.factory(Crashing, CPU), Precision.fp16, batch)
    assert str(verdict) == f"FAIL probe {probe.name}: {told}"
