"""What a probe of dtypes could miss is seen all the same."""

from typing import Any

import pytest
import torch
from probing import CPU, red
from sabotage import environments as env
from sabotage import steps
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from perfsuite.devices.precision import Precision, backend_flags
from perfsuite.judging.gates import Outcome
from perfsuite.probes import dtypes, gradients
from perfsuite.training.step import TrainStep

pytestmark = pytest.mark.usefixtures("narrow_head")


def test_a_model_that_is_shown_and_not_trained_is_seen(batch: env.Batch) -> None:
    class Shown(TrainStep):
        def __call__(self, batch: tuple[Tensor, Tensor]) -> Tensor:
            images, labels = batch
            trained = env.channels_last()
            with self._autocast:
                return self.criterion(trained(images), labels).detach()

    made = env.factory(Shown, CPU, model=env.channels_last)
    found = dtypes.layer_dtypes(made, Precision.bf16, batch)
    assert found.outcome is Outcome.INCONCLUSIVE
    assert found.figure == "no convolution or linear layer was called"
    assert red(dtypes.memory_format(made, Precision.bf16, batch), "no channels_last conv")
    assert red(dtypes.arithmetic(made, Precision.bf16, batch), "the model was not called")
    assert red(gradients.fresh_gradients(made, Precision.bf16, batch), "there was no backward pass")


def test_a_loss_that_is_cast_too_late_is_seen(batch: env.Batch) -> None:
    class CastLate(steps.LossOutsideAutocast):
        def __call__(self, batch: tuple[Tensor, Tensor]) -> Tensor:
            return super().__call__(batch).float()

    verdict = dtypes.loss_dtype(env.factory(CastLate, CPU), Precision.fp16, batch)
    assert red(verdict, "the loss is float16")


def test_tf32_in_the_backward_pass_alone_is_seen(batch: env.Batch) -> None:
    class BackwardInTF32(TrainStep):
        def __call__(self, batch: tuple[Tensor, Tensor]) -> Tensor:
            images, labels = batch
            with backend_flags(Precision.fp32):
                loss = self.criterion(self.model(images), labels)
            with backend_flags(Precision.tf32):
                loss.backward()
            self.optimizer.step()
            return loss.detach()

    verdict = dtypes.arithmetic(env.factory(BackwardInTF32, CPU), Precision.fp32, batch)
    assert red(verdict, "float32 is computed as ieee, tf32")


class RoundsOperands(TorchDispatchMode):
    """Lets some operators of float32 compute in bfloat16, as oneDNN may where it has the units."""

    def __init__(self, *names: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's
        self._names = names

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types  # part of torch's signature
        if func._opname in self._names:
            args = [
                e.bfloat16().float() if isinstance(e, Tensor) and e.dtype is torch.float32 else e
                for e in args
            ]
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("precision", [Precision.fp32, Precision.bf16], ids=str)
@pytest.mark.parametrize(
    ("operators", "told"),
    [
        (["mm"], "ieee by its flags, but a product is off by 2e-03"),
        (["convolution"], "ieee by its flags, but a convolution is off by 2e-03"),
        (["mm", "convolution"], "ieee by its flags, but a product and 1 more is off by 2e-03"),
    ],
    ids=["product", "convolution", "both"],
)
def test_float32_that_is_bfloat16_in_spite_of_its_flags_is_measured(
    batch: env.Batch, operators: list[str], told: str, precision: Precision
) -> None:
    class Rounded(TrainStep):
        def __call__(self, batch: tuple[Tensor, Tensor]) -> Tensor:
            with RoundsOperands(*operators):
                return super().__call__(batch)

    verdict = dtypes.arithmetic(env.factory(Rounded, CPU), precision, batch)
    assert red(verdict, told)


@pytest.mark.parametrize("operation", ["matmul", "conv"])
def test_a_step_that_lets_onednn_compute_float32_in_bfloat16_is_seen(
    batch: env.Batch, operation: str
) -> None:
    flag = getattr(torch.backends.mkldnn, operation)

    class Medium(TrainStep):
        def __call__(self, batch: tuple[Tensor, Tensor]) -> Tensor:
            images, labels = batch
            with backend_flags(Precision.fp32):
                flag.fp32_precision = "bf16"
                loss = self.criterion(self.model(images), labels)
                loss.backward()
            return loss.detach()

    verdict = dtypes.arithmetic(env.factory(Medium, CPU), Precision.fp32, batch)
    assert red(verdict, "float32 is computed as bf16, ieee")
    assert flag.fp32_precision == "none"


def test_a_sample_of_float32_is_exact_to_its_last_digits() -> None:
    sample = dtypes.Sample(CPU)
    with backend_flags(Precision.fp32):
        sample.compute()
    assert all(0 < error < 1e-6 for error in sample.errors().values())


def test_the_sample_draws_no_random_numbers_that_are_the_steps(batch: env.Batch) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    sample = dtypes.Sample(CPU)
    sample.compute()
    assert torch.equal(torch.get_rng_state(), before)


def test_a_model_without_convolutions_has_no_memory_format(batch: env.Batch) -> None:
    made = env.factory(TrainStep, CPU, model=env.fresh_leaves)
    verdict = dtypes.memory_format(made, Precision.bf16, batch)
    assert str(verdict).startswith("PASS probe memory_format: no channels_last weights")
