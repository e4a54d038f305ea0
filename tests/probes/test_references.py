"""What probes share is taken once for each training, precision and batch, and not kept alive."""

import gc
import weakref
from dataclasses import replace
from typing import Any

import pytest
import torch
from probing import CPU, not_passed_by, red
from sabotage import environments as env
from sabotage import evaluations, passes, updates
from torch import Tensor, nn

from perfsuite.devices.precision import Precision
from perfsuite.judging.gates import Outcome
from perfsuite.probes import evaluating, gradients, outcomes, products
from perfsuite.probes.references import led
from perfsuite.probes.registry import PROBES
from perfsuite.probes.watching import sampled
from perfsuite.training.arm import Arm
from perfsuite.training.step import TrainStep

pytestmark = pytest.mark.usefixtures("narrow_head")


class Made:
    """A maker of arms that counts them."""

    def __init__(self, kind: type[TrainStep] = TrainStep) -> None:
        self.count = 0
        self._make = env.factory(kind, CPU, model=env.one_convolution)

    def fresh(self, precision: Precision) -> Arm:
        self.count += 1
        return self._make(precision)


def test_probes_in_turn_share_what_they_look_at(batch: env.Batch) -> None:
    made = Made()
    for probe in (outcomes.update, outcomes.averages, outcomes.buffers, evaluating.modes):
        assert probe(made.fresh, Precision.bf16, batch).outcome is Outcome.PASS
    assert made.count == 2


def test_another_batch_precision_or_training_is_looked_at_anew(batch: env.Batch) -> None:
    made, other = Made(), Made()
    outcomes.update(made.fresh, Precision.bf16, batch)
    outcomes.update(made.fresh, Precision.bf16, (batch[0].clone(), batch[1]))
    outcomes.update(made.fresh, Precision.fp32, batch)
    outcomes.update(other.fresh, Precision.fp32, batch)
    assert (made.count, other.count) == (6, 2)


def test_what_is_shared_keeps_no_training_alive(batch: env.Batch) -> None:
    made = Made()
    outcomes.update(made.fresh, Precision.bf16, batch)
    seen = weakref.ref(made)
    del made
    gc.collect()
    assert seen() is None


def test_few_elements_of_a_large_tensor_are_looked_at() -> None:
    large = torch.arange(10**6)
    found = sampled(large)
    assert 2**14 <= len(found) <= 2**15
    assert found.dtype is torch.float64
    assert float(found[-1]) > 0.99 * 10**6
    assert torch.equal(sampled(torch.arange(7)), torch.arange(7).double())


def test_weights_are_led_to_the_same_bits(batch: env.Batch) -> None:
    found = led(Made().fresh, Precision.bf16, batch)
    assert len(found.weights) == 5
    assert [each.apart for each in (found.weights | found.averages).values() if each.apart] == []
    assert all(each.moved > 0 for each in found.weights.values())


@pytest.mark.parametrize("probe", [outcomes.update, outcomes.averages, gradients.accumulation])
def test_a_step_without_an_optimizer_in_its_state_is_not_gated(
    probe: Any, batch: env.Batch
) -> None:
    def hidden(precision: Precision) -> Arm:
        arm = Made().fresh(precision)
        return replace(arm, parts={"model": arm.models[0]})

    verdict = probe(hidden, Precision.bf16, batch)
    assert verdict.outcome is Outcome.NOT_GATED
    assert "add the optimizer to `state`" in verdict.reason


def test_clipped_gradients_are_not_taken_for_undivided_ones(batch: env.Batch) -> None:
    class Clipped(updates.Accumulating):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            self.optimizer.register_step_pre_hook(self._clip)

        def _clip(self, *_: Any) -> None:
            nn.utils.clip_grad_norm_(self.model.parameters(), 0.1)

    verdict = gradients.accumulation(Made(Clipped).fresh, Precision.fp32, batch)
    assert verdict.outcome is Outcome.PASS, str(verdict)
    assert float(verdict.figure.split()[3]) > 1.25


class NoEvaluation(nn.Flatten):
    """Cannot be evaluated, in mixed precision or at all."""

    always = True

    def forward(self, images: Tensor) -> Tensor:
        if not self.training and (self.always or torch.is_autocast_enabled("cpu")):
            raise RuntimeError("no targets\nat all")
        return super().forward(images)


class NoFastEvaluation(NoEvaluation):
    always = False


def test_an_evaluation_that_raises_in_mixed_precision_alone_is_a_fault(batch: env.Batch) -> None:
    for kind in (NoEvaluation, NoFastEvaluation):
        make = env.factory(TrainStep, CPU, model=lambda: nn.Sequential(kind(), nn.Linear(784, 10)))  # noqa: B023  # made at once
        verdict = evaluating.evaluation(make, Precision.bf16, batch)
        if kind is NoFastEvaluation:
            assert red(verdict, "evaluation raises RuntimeError: no targets")
        else:
            assert verdict.outcome is Outcome.NOT_GATED, str(verdict)


def test_a_model_that_evaluates_alike_passes_though_it_evaluates_in_each_step(
    batch: env.Batch,
) -> None:
    make = env.factory(evaluations.Evaluating, CPU, model=env.one_convolution)
    assert evaluating.evaluation(make, Precision.bf16, batch).outcome is Outcome.PASS


def test_what_a_checkpoint_computes_again_is_no_call(batch: env.Batch) -> None:
    make = env.factory(passes.Checkpointed, CPU, model=env.one_convolution)
    assert not_passed_by(make, Precision.bf16, batch, PROBES) == []
    assert led(make, Precision.bf16, batch).calls == 1


def test_a_product_on_another_device_is_seen(batch: env.Batch) -> None:
    make = env.factory(TrainStep, CPU, model=env.one_convolution)

    def elsewhere(precision: Precision) -> Arm:
        return replace(make(precision), device=torch.device("meta"))

    verdict = products.product_dtypes(elsewhere, Precision.bf16, batch)
    assert red(verdict, "100% of the FLOPs on cpu: convolution in forward, 0 (Conv2d)")


def test_a_step_without_products_is_not_gated(batch: env.Batch) -> None:
    class Scaling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gain = nn.Parameter(torch.ones(10))

        def forward(self, images: Tensor) -> Tensor:
            return images.flatten(1)[:, :10] * self.gain

    make = env.factory(TrainStep, CPU, model=Scaling)
    for probe in (products.product_dtypes, products.exact_products):
        verdict = probe(make, Precision.bf16, batch)
        assert verdict.outcome is Outcome.NOT_GATED
        assert "no product or convolution was computed" in verdict.reason
