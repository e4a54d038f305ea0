"""What a probe of dtypes could miss is seen all the same."""

import pytest
from probing import CPU, red
from sabotage import environments as env
from sabotage import steps
from torch import Tensor

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


def test_a_model_without_convolutions_has_no_memory_format(batch: env.Batch) -> None:
    made = env.factory(TrainStep, CPU, model=env.fresh_leaves)
    verdict = dtypes.memory_format(made, Precision.bf16, batch)
    assert str(verdict).startswith("PASS probe memory_format: no channels_last weights")
