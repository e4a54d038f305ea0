"""Healthy steps pass every probe; what a probe could miss is seen all the same.

The faults that probes are there for are in the catalogue of tests/sabotage.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from sabotage import environments as env
from sabotage import steps
from torch import Tensor, nn

from perfsuite.devices.precision import Precision, backend_flags
from perfsuite.judging.gates import Outcome, Verdict
from perfsuite.probes import dtypes, gradients, registry, running
from perfsuite.probes.probe import Batch, Probe
from perfsuite.probes.registry import PROBES
from perfsuite.training.step import TrainStep
from perfsuite.training.workload import Parameters

CPU = torch.device("cpu")
HEALTHY = (TrainStep, steps.ClippingUnscaledGradients)


@pytest.fixture(scope="module")
def batch() -> Batch:
    return env.batches(CPU, seed=0, steps=1)[0]


def red(verdict: Verdict, figure: str) -> bool:
    return verdict.outcome is Outcome.FAIL and figure in verdict.figure and bool(verdict.reason)


@pytest.mark.parametrize("kind", HEALTHY, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.__name__)
@pytest.mark.parametrize("precision", [Precision.fp32, Precision.bf16, Precision.fp16])
def test_a_healthy_step_passes(
    kind: type[TrainStep], probe: Probe, precision: Precision, batch: Batch
) -> None:
    # Clipping reads the scaler's overflow flag on the host, as it must.
    if kind is steps.ClippingUnscaledGradients and probe is running.host_waits:
        return
    verdict = probe(env.factory(kind, CPU), precision, batch)
    assert verdict.outcome is Outcome.PASS, str(verdict)


def test_all_that_passed_is_one_line_and_what_failed_is_told(batch: Batch) -> None:
    good, bad = (
        [registry.run(probe, env.factory(kind, CPU), Precision.bf16, batch) for probe in PROBES]
        for kind in (TrainStep, steps.BackwardUnderAutocast)
    )
    (passed,) = registry.judge(good)
    assert str(passed) == "PASS probe all: 13 probes passed, all of them"
    assert [each.gate for each in registry.judge(bad)] == ["probe autocast_in_backward"]
    assert registry.judge([])[0].outcome is Outcome.FAIL


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RuntimeError("no room\nfor details"), "raised RuntimeError: no room, a step that runs"),
        (AssertionError(), "raised AssertionError, a step that runs"),
    ],
    ids=["message", "none"],
)
@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.__name__)
def test_a_step_that_crashes_is_a_verdict_that_names_it(
    probe: Probe, error: Exception, told: str, batch: Batch
) -> None:
    class Crashing(TrainStep):
        def __call__(self, *_: Tensor) -> Tensor:
            raise error

    verdict = registry.run(probe, env.factory(Crashing, CPU), Precision.fp16, batch)
    assert str(verdict) == f"FAIL probe {probe.__name__}: {told}"


def test_a_model_that_is_shown_and_not_trained_is_seen(batch: Batch) -> None:
    class Shown(TrainStep):
        def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
            trained = env.channels_last()
            with self._autocast:
                return self.criterion(trained(images), labels).detach()

    made = env.factory(Shown, CPU, model=env.channels_last)
    found = dtypes.layer_dtypes(made, Precision.bf16, batch)
    assert found.outcome is Outcome.INCONCLUSIVE
    assert found.figure == "no convolution or linear layer was called"
    assert red(dtypes.memory_format(made, Precision.bf16, batch), "no channels_last conv")
    assert red(dtypes.arithmetic(made, Precision.bf16, batch), "the model was not called")
    assert red(gradients.fresh_gradients(made, Precision.bf16, batch), "no backward pass")


def test_a_loss_that_is_cast_too_late_is_seen(batch: Batch) -> None:
    class CastLate(steps.LossOutsideAutocast):
        def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
            return super().__call__(images, labels).float()

    verdict = dtypes.loss_dtype(env.factory(CastLate, CPU), Precision.fp16, batch)
    assert red(verdict, "loss in float16")


def test_tf32_in_the_backward_pass_alone_is_seen(batch: Batch) -> None:
    class BackwardInTF32(TrainStep):
        def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
            with backend_flags(Precision.fp32):
                loss = self.criterion(self.model(images), labels)
            with backend_flags(Precision.tf32):
                loss.backward()
            self.optimizer.step()
            return loss.detach()

    verdict = dtypes.arithmetic(env.factory(BackwardInTF32, CPU), Precision.fp32, batch)
    assert red(verdict, "float32 as ieee, tf32")


@pytest.mark.parametrize("precision", [Precision.fp32, Precision.bf16])
def test_a_scaler_where_none_belongs_is_seen(precision: Precision, batch: Batch) -> None:
    class Scaled(TrainStep):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            self.scaler = torch.amp.GradScaler("cpu")

    verdict = gradients.loss_scale(env.factory(Scaled, CPU), precision, batch)
    assert red(verdict, "a GradScaler enabled")


def test_gradients_cleared_after_the_forward_pass_are_not_stale_but_held(batch: Batch) -> None:
    class ClearedLate(TrainStep):
        def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
            loss = self.criterion(self.model(images), labels)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            return loss.detach()

    made = env.factory(ClearedLate, CPU)
    verdict = gradients.fresh_gradients(made, Precision.fp32, batch)
    assert red(verdict, "held through the forward pass")


def sgd(parameters: Parameters) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=1e-3, fused=True)


@pytest.mark.parametrize(
    ("kind", "found"),
    [(TrainStep, "3 in 3 calls"), (steps.DoubleStep, "6 in 3 calls")],
    ids=["once", "twice"],
)
def test_an_optimizer_without_a_count_is_counted_by_its_calls(
    kind: type[TrainStep], found: str, batch: Batch
) -> None:
    verdict = running.step_count(env.factory(kind, CPU, optimizer=sgd), Precision.bf16, batch)
    assert verdict.figure == found
    assert (verdict.outcome is Outcome.PASS) is (kind is TrainStep)


def test_a_step_taken_in_spite_of_an_overflow_is_seen(batch: Batch) -> None:
    made = env.factory(steps.StepOnScaledGradients, CPU)
    verdict = running.skipped_step(made, Precision.fp16, batch)
    assert red(verdict, "was changed by it")


def test_a_scale_that_stays_after_an_overflow_is_seen(batch: Batch) -> None:
    class Stubborn(TrainStep):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            self.scaler = torch.amp.GradScaler(
                "cpu", backoff_factor=0.999999999, enabled=self.precision.scales_gradients
            )

    verdict = running.skipped_step(env.factory(Stubborn, CPU), Precision.fp16, batch)
    assert red(verdict, "the scale stayed at 65536")


def test_an_optimizer_that_reads_its_own_count_waits_for_nothing(batch: Batch) -> None:
    made = env.factory(TrainStep, CPU, optimizer=env.adam_not_fused)
    verdict = running.host_waits(made, Precision.bf16, batch)
    assert verdict.outcome is Outcome.PASS, str(verdict)


@pytest.mark.parametrize("read", [float, bool, Tensor.item], ids=["float", "bool", "item"])
def test_every_way_to_fetch_a_value_counts(read: Callable[[Tensor], object], batch: Batch) -> None:
    class Reads(TrainStep):
        def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
            loss = super().__call__(images, labels)
            read(loss)
            return loss

    verdict = running.host_waits(env.factory(Reads, CPU), Precision.bf16, batch)
    assert red(verdict, "waits for the device: 1 fetched")


class KeepsLosses(TrainStep):
    """Keeps each loss: one float32 a step."""

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        loss = super().__call__(images, labels)
        self.kept = [*getattr(self, "kept", []), loss]
        return loss


class KeepsGraphs(TrainStep):
    """Keeps each step's activations, by a graph that no backward pass has freed."""

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        self.kept = [*getattr(self, "kept", []), self.model(images)]
        return super().__call__(images, labels)


@pytest.mark.parametrize(
    ("kind", "least"), [(KeepsLosses, 4), (KeepsGraphs, 100_000)], ids=["losses", "graphs"]
)
@pytest.mark.parametrize("precision", [Precision.fp32, Precision.bf16, Precision.fp16])
def test_what_a_step_keeps_is_counted_to_the_byte(
    kind: type[TrainStep], least: int, precision: Precision, batch: Batch
) -> None:
    verdict = running.memory_slope(env.factory(kind, CPU), precision, batch)
    assert red(verdict, "bytes a step")
    grown = int(verdict.figure.split()[2].replace(",", ""))
    assert grown == 4 if kind is KeepsLosses else grown >= least


def test_garbage_that_waits_for_its_collector_is_no_growth(batch: Batch) -> None:
    class Cyclic(TrainStep):
        def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
            cycle: list[Any] = [images.clone()]
            cycle.append(cycle)
            return super().__call__(images, labels)

    verdict = running.memory_slope(env.factory(Cyclic, CPU), Precision.fp32, batch)
    assert verdict.outcome is Outcome.PASS, str(verdict)


class OwnOptimizer(TrainStep):
    """Uses an optimizer that cannot be replaced."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.own = self.optimizer

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        self.own.zero_grad()
        loss = self.criterion(self.model(images), labels)
        loss.backward()
        self.own.step()
        return loss.detach()


class LearnsNothing(TrainStep):
    """Puts the weights back after each step."""

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        before = self.snapshot()
        loss = super().__call__(images, labels)
        self.model.load_state_dict(before.model)
        return loss


@pytest.mark.parametrize(
    ("kind", "found"),
    [(OwnOptimizer, "SGD was given no gradient"), (LearnsNothing, "fp32's loss went from")],
    ids=["own-optimizer", "nothing-learnt"],
)
def test_a_canary_that_does_not_sing_at_fp32_says_nothing_of_the_rest(
    kind: type[TrainStep], found: str, batch: Batch
) -> None:
    verdict = running.sgd_canary(env.factory(kind, CPU), Precision.bf16, batch)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert found in verdict.figure
    assert registry.judge([verdict]) == (verdict,)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_gradients_off_by_a_factor_turn_the_canary_red(factor: float, batch: Batch) -> None:
    class Off(TrainStep):
        def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
            handle = self.optimizer.register_step_pre_hook(self._scale)
            try:
                return super().__call__(images, labels)
            finally:
                handle.remove()

        def _scale(self, *_: Any) -> None:
            if self.precision.is_amp:
                for parameter in self.model.parameters():
                    assert parameter.grad is not None
                    parameter.grad *= factor

    made = env.factory(Off, CPU)
    assert red(running.sgd_canary(made, Precision.bf16, batch), "times as fast as fp32")


def test_a_model_without_convolutions_has_no_memory_format(batch: Batch) -> None:
    made = env.factory(TrainStep, CPU, model=env.fresh_leaves)
    verdict = dtypes.memory_format(made, Precision.bf16, batch)
    assert str(verdict).startswith("PASS probe memory_format: no channels_last weights")


class OtherMasks(TrainStep):
    """Draws other dropout masks at each precision, as a GPU does."""

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        torch.manual_seed(len(self.precision) + self.precision.is_amp)
        return super().__call__(images, labels)


def dropping_out() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.Dropout(0.8), nn.Linear(64, 10))


@pytest.mark.parametrize("probe", [gradients.gradients, gradients.loss_scale])
@pytest.mark.parametrize("precision", [Precision.bf16, Precision.fp16])
def test_masks_that_differ_by_precision_are_no_fault(
    probe: Probe, precision: Precision, batch: Batch
) -> None:
    verdict = probe(env.factory(OtherMasks, CPU, model=dropping_out), precision, batch)
    assert verdict.outcome is Outcome.PASS, str(verdict)


class Accumulating(TrainStep):
    """Healthy: two halves of the batch, and one step of the optimizer."""

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        total = torch.zeros((), device=self.device)
        with backend_flags(self.precision):
            self.optimizer.zero_grad(set_to_none=True)
            for some, those in zip(images.chunk(2), labels.chunk(2), strict=True):
                with self._autocast:
                    loss = self.criterion(self.model(some), those) / 2
                self.scaler.scale(loss).backward()
                total += loss.detach()
            self.scaler.step(self.optimizer)
            self.scaler.update()
        return total


class AccumulatingForEver(Accumulating):
    """The same, and the gradients are never cleared."""

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        keeps, self.optimizer.zero_grad = self.optimizer.zero_grad, lambda **_: None  # type: ignore[method-assign]  # the fault
        try:
            return super().__call__(images, labels)
        finally:
            self.optimizer.zero_grad = keeps  # type: ignore[method-assign]  # as it was


def test_gradients_may_be_accumulated_within_a_step_and_not_between_steps(batch: Batch) -> None:
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
    [gradients.gradients, gradients.loss_scale, running.step_count],
    ids=lambda probe: probe.__name__,
)
def test_a_scale_that_has_still_to_settle_is_no_fault(probe: Probe, batch: Batch) -> None:
    make_step = env.factory(TrainStep, CPU, criterion=steep)
    first = make_step(Precision.fp16)
    first(*batch)
    assert first.scaler.get_scale() < 65536.0  # it does overflow
    verdict = probe(make_step, Precision.fp16, batch)
    assert verdict.outcome is Outcome.PASS, str(verdict)


def test_a_scale_that_never_settles_is_one(batch: Batch) -> None:
    make_step = env.factory(steps.HugeScale, CPU)
    assert running.step_count(make_step, Precision.fp16, batch).outcome is Outcome.FAIL
