"""What a probe of the optimizer could miss is seen all the same."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from probing import CPU, not_passed_by, red
from sabotage import environments as env
from sabotage import steps
from torch import Tensor

from perfsuite.devices.precision import Precision, backend_flags
from perfsuite.judging.gates import Outcome
from perfsuite.probes import optimizer, registry
from perfsuite.training.step import TrainStep


def sgd(parameters: env.Parameters) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=1e-3, fused=True)


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        (TrainStep, "3 optimizer steps in 3 calls"),
        (steps.DoubleStep, "6 optimizer steps in 3 calls"),
    ],
    ids=["once", "twice"],
)
def test_an_optimizer_without_a_count_is_counted_by_its_calls(
    kind: type[TrainStep], found: str, batch: env.Batch
) -> None:
    verdict = optimizer.step_count(env.factory(kind, CPU, optimizer=sgd), Precision.bf16, batch)
    assert verdict.figure == found
    assert (verdict.outcome is Outcome.PASS) is (kind is TrainStep)


def test_a_step_taken_in_spite_of_an_overflow_is_seen(batch: env.Batch) -> None:
    made = env.factory(steps.StepOnScaledGradients, CPU)
    verdict = optimizer.skipped_step(made, Precision.fp16, batch)
    assert red(verdict, "was changed by a step that overflowed")


def test_a_scale_that_stays_after_an_overflow_is_seen(batch: env.Batch) -> None:
    class Stubborn(TrainStep):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            self.scaler = torch.amp.GradScaler(
                "cpu", backoff_factor=0.999999999, enabled=self.precision.scales_gradients
            )

    verdict = optimizer.skipped_step(env.factory(Stubborn, CPU), Precision.fp16, batch)
    assert red(verdict, "the scale stayed at 65536")


class OwnOptimizer(TrainStep):
    """Uses an optimizer that cannot be replaced."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.own = sgd(self.model.parameters())

    def __call__(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch
        self.own.zero_grad()
        loss = self.criterion(self.model(images), labels)
        loss.backward()
        self.own.step()
        return loss.detach()


class LearnsNothing(TrainStep):
    """Puts the weights back after each step."""

    def __call__(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        before = deepcopy(self.model.state_dict())
        loss = super().__call__(batch)
        self.model.load_state_dict(before)
        return loss


@pytest.mark.usefixtures("narrow_head")
@pytest.mark.parametrize(
    ("kind", "found"),
    [(OwnOptimizer, "SGD was given no gradient"), (LearnsNothing, "fp32's loss went from")],
    ids=["own-optimizer", "nothing-learnt"],
)
def test_a_canary_that_does_not_sing_at_fp32_says_nothing_of_the_rest(
    kind: type[TrainStep], found: str, batch: env.Batch
) -> None:
    verdict = optimizer.sgd_canary(env.factory(kind, CPU), Precision.bf16, batch)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert found in verdict.figure
    assert registry.judge_probes([verdict]) == (verdict,)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_gradients_off_by_a_factor_turn_the_canary_red(factor: float, batch: env.Batch) -> None:
    class Off(TrainStep):
        def __call__(self, batch: tuple[Tensor, Tensor]) -> Tensor:
            handle = self.optimizer.register_step_pre_hook(self._scale)
            try:
                return super().__call__(batch)
            finally:
                handle.remove()

        def _scale(self, *_: Any) -> None:
            if self.precision.is_amp:
                for parameter in self.model.parameters():
                    assert parameter.grad is not None
                    parameter.grad *= factor

    made = env.factory(Off, CPU)
    assert red(optimizer.sgd_canary(made, Precision.bf16, batch), "times as fast as fp32")


# Losses of twenty steps: one falls all the way, one passes a ridge, beyond which runs differ.
STEADY = [1.0 - 0.01 * step for step in range(20)]
ASTRAY = {Precision.fp32: [1.0, 1.4, *[0.9] * 18], Precision.bf16: [1.0, 1.4, *[0.2] * 18]}


@pytest.mark.usefixtures("narrow_head")
@pytest.mark.parametrize(
    ("steady_from", "found", "outcome"),
    [
        (1 / 4, "learns 1.000 times as fast as fp32", Outcome.PASS),
        (1 / 16, "learns 1.000 times as fast as fp32", Outcome.PASS),
        (0, "it learns 10.000 times as fast as fp32, whose own loss rises", Outcome.NOT_GATED),
    ],
)
def test_the_canary_sings_at_a_rate_at_which_the_loss_falls_steadily(
    steady_from: float,
    found: str,
    outcome: Outcome,
    batch: env.Batch,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A tiny vision transformer in bf16 once learnt 8.7 times as fast, beyond such a ridge."""

    def losses(arm: Any, rate: float, _: Any) -> list[float]:
        return STEADY if rate <= steady_from else ASTRAY[arm.precision]

    monkeypatch.setattr(optimizer, "_canary_rate", lambda *_: 1.0)
    monkeypatch.setattr(optimizer, "_canary_losses", losses)
    verdict = optimizer.sgd_canary(env.factory(TrainStep, CPU), Precision.bf16, batch)
    assert found in f"{verdict.figure} {verdict.reason}"
    assert verdict.outcome is outcome


class Wrapped(TrainStep):
    """Calls the optimizer's step as it was when this was made, as libraries do that wrap it."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._wrapped = self.optimizer.step

    def __call__(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        self.optimizer.step = self._wrapped  # type: ignore[method-assign]  # what accelerate does
        return super().__call__(batch)


class WithClosure(TrainStep):
    """Computes loss and gradients within the optimizer's step, as Lightning does."""

    def __call__(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch

        def closure() -> float:
            self.optimizer.zero_grad()
            with self._autocast:
                self._loss = self.criterion(self.model(images), labels)
            self._loss.backward()
            return self._loss  # type: ignore[return-value]  # a tensor will do, and needs no wait

        with backend_flags(self.precision):
            self.optimizer.step(closure)
        return self._loss.detach()


@pytest.mark.usefixtures("narrow_head")
@pytest.mark.parametrize("kind", [Wrapped, WithClosure])
def test_ways_to_call_an_optimizer_that_are_no_fault(
    kind: type[TrainStep], batch: env.Batch
) -> None:
    make = env.factory(kind, CPU)
    assert not_passed_by(make, Precision.bf16, batch, registry.PROBES) == []


@pytest.mark.usefixtures("narrow_head")
def test_the_canary_learns_as_sgd_does_whoever_wrapped_the_step(batch: env.Batch) -> None:
    verdict = optimizer.sgd_canary(env.factory(Wrapped, CPU), Precision.fp16, batch)
    assert verdict.outcome is Outcome.PASS, str(verdict)
