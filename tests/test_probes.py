"""Every planted fault turns the probe that is for it red; healthy steps pass them all."""

import planted_steps as planted
import pytest
import torch

from perfsuite import dtype_probes, gradient_probes, probes, run_probes
from perfsuite.data import load_digits
from perfsuite.gates import Outcome
from perfsuite.model import build_model
from perfsuite.precision import Precision
from perfsuite.probes import PROBES, Batch, Probe, StepFactory
from perfsuite.step import TrainStep

CPU = torch.device("cpu")
CFG = [[1, 8, 3, 2, 1], [8, 16, 3, 2, 1]]
HEALTHY = (TrainStep, planted.ClippingUnscaledGradients)


def factory(kind: type[TrainStep], *, fused: bool = True) -> StepFactory:
    def make_step(precision: Precision) -> TrainStep:
        torch.manual_seed(0)
        model = build_model(CFG)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=fused)
        return kind(model, optimizer, precision=precision)

    return make_step


@pytest.fixture(scope="module")
def batch() -> Batch:
    return next(load_digits("mnist5k", CPU).batches(16, seed=0))


@pytest.mark.parametrize("kind", HEALTHY, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.__name__)
@pytest.mark.parametrize("precision", [Precision.fp32, Precision.bf16, Precision.fp16])
def test_a_healthy_step_passes(
    kind: type[TrainStep], probe: Probe, precision: Precision, batch: Batch
) -> None:
    # Clipping reads the scaler's overflow flag on the host, as it must: see below.
    if kind is planted.ClippingUnscaledGradients and probe is run_probes.host_waits:
        return
    verdict = probe(factory(kind), precision, batch)
    assert verdict.outcome is Outcome.PASS, str(verdict)


FAULTS = [
    (planted.WithoutAutocast, Precision.bf16, dtype_probes.layer_dtypes, "computed in float32"),
    (planted.BackwardUnderAutocast, Precision.bf16, dtype_probes.autocast_in_backward, "on"),
    (planted.WithoutScaler, Precision.fp16, gradient_probes.loss_scale, "times fp32"),
    (planted.StepOnScaledGradients, Precision.fp16, gradient_probes.gradients, "6.5"),
    (planted.ClippingScaledGradients, Precision.fp16, gradient_probes.gradients, "e-05 times"),
    (planted.DoubleStep, Precision.bf16, run_probes.step_count, "6 in 3 calls"),
    (
        planted.WithoutZeroGrad,
        Precision.fp16,
        gradient_probes.fresh_gradients,
        "left from the step",
    ),
    (planted.HalfModel, Precision.fp16, dtype_probes.layer_dtypes, "is float16"),
    (planted.LossOutsideAutocast, Precision.fp16, dtype_probes.loss_dtype, "loss in float16"),
    (planted.LossOnTheHost, Precision.bf16, run_probes.host_waits, "1 values fetched"),
    (planted.TF32InAnFp32Arm, Precision.fp32, dtype_probes.arithmetic, "tf32"),
]


@pytest.mark.parametrize(
    ("kind", "precision", "probe", "found"), FAULTS, ids=lambda each: getattr(each, "__name__", "")
)
def test_a_planted_fault_turns_its_probe_red(
    kind: type[TrainStep], precision: Precision, probe: Probe, found: str, batch: Batch
) -> None:
    verdict = probe(factory(kind), precision, batch)
    assert verdict.outcome is Outcome.FAIL
    assert found in verdict.figure
    assert verdict.reason


@pytest.mark.parametrize(
    ("kind", "error"),
    [(planted.WithoutScale, AssertionError), (planted.WithoutUpdate, RuntimeError)],
    ids=["no-scale", "no-update"],
)
def test_a_scaler_used_by_halves_crashes_by_itself(
    kind: type[TrainStep], error: type[Exception], batch: Batch
) -> None:
    step = factory(kind)(Precision.fp16)

    def two_steps() -> None:
        for _ in range(2):
            step(*batch)

    with pytest.raises(error):
        two_steps()


def test_all_that_passed_is_one_line_and_what_failed_is_told(batch: Batch) -> None:
    good, bad = (
        [probe(factory(kind), Precision.bf16, batch) for probe in PROBES]
        for kind in (TrainStep, planted.BackwardUnderAutocast)
    )
    (passed,) = probes.judge(good)
    assert str(passed) == "PASS probe all: 13 probes passed, all of them"
    assert [each.gate for each in probes.judge(bad)] == ["probe autocast_in_backward"]
    assert probes.judge([])[0].outcome is Outcome.FAIL


def test_an_optimizer_that_is_not_fused_makes_the_scaler_wait(batch: Batch) -> None:
    verdict = run_probes.host_waits(factory(TrainStep, fused=False), Precision.fp16, batch)
    assert verdict.outcome is Outcome.FAIL
    assert "fused" in verdict.reason
