"""What a probe of gradients could miss is seen, and what is healthy is not blamed."""

from typing import Any

import pytest
import torch
from probing import CPU, red
from sabotage import environments as env
from sabotage import steps
from sabotage.updates import Accumulating
from torch import Tensor, nn

from perfsuite.devices.precision import Precision
from perfsuite.judging.gates import Outcome
from perfsuite.probes import gradients, optimizer
from perfsuite.probes.probe import Probe
from perfsuite.training.step import TrainStep

pytestmark = pytest.mark.usefixtures("narrow_head")


@pytest.mark.parametrize("precision", [Precision.fp32, Precision.bf16])
def test_a_scaler_where_none_belongs_is_seen(precision: Precision, batch: env.Batch) -> None:
    class Scaled(TrainStep):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            self.scaler = torch.amp.GradScaler("cpu")

    verdict = gradients.loss_scale(env.factory(Scaled, CPU), precision, batch)
    assert red(verdict, "a GradScaler is enabled")


def test_gradients_cleared_after_the_forward_pass_are_not_stale_but_held(batch: env.Batch) -> None:
    class ClearedLate(TrainStep):
        def __call__(self, batch: tuple[Tensor, Tensor]) -> Tensor:
            images, labels = batch
            loss = self.criterion(self.model(images), labels)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            return loss.detach()

    made = env.factory(ClearedLate, CPU)
    verdict = gradients.fresh_gradients(made, Precision.fp32, batch)
    assert red(verdict, "gradients are held in the forward pass")


class OtherMasks(TrainStep):
    """Draws other dropout masks at each precision, as a GPU does."""

    def __call__(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        torch.manual_seed(len(self.precision) + self.precision.is_amp)
        return super().__call__(batch)


def dropping_out() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.Dropout(0.8), nn.Linear(64, 10))


@pytest.mark.parametrize("probe", [gradients.gradients, gradients.loss_scale])
@pytest.mark.parametrize("precision", [Precision.bf16, Precision.fp16])
def test_masks_that_differ_by_precision_are_no_fault(
    probe: Probe, precision: Precision, batch: env.Batch
) -> None:
    verdict = probe(env.factory(OtherMasks, CPU, model=dropping_out), precision, batch)
    assert verdict.outcome is Outcome.PASS, str(verdict)


class AccumulatingForEver(Accumulating):
    """The same, and the gradients are never cleared."""

    def __call__(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        keeps, self.optimizer.zero_grad = self.optimizer.zero_grad, lambda **_: None  # type: ignore[method-assign]  # the fault
        try:
            return super().__call__(batch)
        finally:
            self.optimizer.zero_grad = keeps  # type: ignore[method-assign]  # as it was


def test_gradients_may_be_accumulated_within_a_step_and_not_between_steps(batch: env.Batch) -> None:
    kinds = {Accumulating: Outcome.PASS, AccumulatingForEver: Outcome.FAIL}
    for kind, outcome in kinds.items():
        make_step = env.factory(kind, CPU)
        verdict = gradients.fresh_gradients(make_step, Precision.bf16, batch)
        assert verdict.outcome is outcome, str(verdict)


def steep(logits: Tensor, labels: Tensor) -> Tensor:
    """A loss whose scaled gradients overflow until the scale has been halved a few times."""
    return 8 * nn.functional.cross_entropy(logits, labels, reduction="sum")


@pytest.mark.parametrize(
    "probe",
    [gradients.gradients, gradients.loss_scale, optimizer.step_count],
    ids=lambda probe: probe.name,
)
def test_a_scale_that_has_still_to_settle_is_no_fault(probe: Probe, batch: env.Batch) -> None:
    make_step = env.factory(TrainStep, CPU, criterion=steep)
    first = make_step(Precision.fp16)
    first.step(batch)
    assert first.scaler.get_scale() < 65536.0  # it does overflow
    verdict = probe(make_step, Precision.fp16, batch)
    assert verdict.outcome is Outcome.PASS, str(verdict)


def test_a_scale_that_never_settles_is_one(batch: env.Batch) -> None:
    make_step = env.factory(steps.HugeScale, CPU)
    assert optimizer.step_count(make_step, Precision.fp16, batch).outcome is Outcome.FAIL
