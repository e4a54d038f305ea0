"""A Trainer takes the steps that it takes by itself, and the probes find its parts."""

import importlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from probing import CPU, not_passed

from perfsuite.devices.precision import Precision
from perfsuite.training.batches import TrainingError
from perfsuite.training.workload import Workload

pytestmark = pytest.mark.skipif(
    find_spec("transformers") is None, reason="transformers is not installed"
)


@pytest.fixture(scope="module")
def trainings() -> Any:
    return importlib.import_module("transformers_trainings")


@pytest.mark.parametrize("accumulate", [1, 2])
def test_probes_pass(accumulate: int, trainings: Any, tmp_path: Path) -> None:
    make = trainings.made_by(tmp_path, gradient_accumulation_steps=accumulate)
    assert not_passed(Workload(name="bert", make=make), Precision.bf16) == []


def test_probes_pass_on_a_decoder_in_a_loop_of_ones_own(trainings: Any) -> None:
    assert not_passed(Workload(name="llama", make=trainings.decoder), Precision.bf16) == []


@pytest.mark.parametrize("precision", [Precision.fp32, Precision.bf16, Precision.fp16])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_it_learns_what_the_trainer_learns(
    accumulate: int, precision: Precision, trainings: Any, tmp_path: Path
) -> None:
    own = {"gradient_accumulation_steps": accumulate, "max_steps": 4}
    made = trainings.made_by(tmp_path, **own)
    arm = Workload(name="bert", make=made).arm(precision, CPU, seed=3)
    for batch in arm.take(4):
        arm.step(batch)

    torch.manual_seed(3)
    mixed = {str(precision): True} if precision.is_amp else {}
    given = {**own, **mixed, "use_cpu": True, "report_to": "none"}
    alone = trainings.scaled(trainings.trainer(tmp_path, **given, seed=3, data_seed=3))
    alone.train()
    (model,) = arm.models
    assert alone.model is not None
    for found, wanted in zip(model.parameters(), alone.model.parameters(), strict=True):
        torch.testing.assert_close(found, wanted)
    if precision is Precision.fp16:  # the first steps overflowed, and the last did not
        assert arm.scaler.get_scale() == alone.accelerator.scaler.get_scale()
        assert 1 < arm.scaler.get_scale() < 2.0**20
        assert arm.scaler.get_scale() > 2.0**16


def test_float32_in_the_place_of_float16_is_refused(trainings: Any, tmp_path: Path) -> None:
    """What a Trainer with fp16=True does on a CPU, in silence."""
    workload = Workload(name="bert", make=trainings.made_unscaled(tmp_path))
    with pytest.raises(TrainingError, match=r"^fp16 was asked .* trains in fp32, not in fp16: "):
        workload.arm(Precision.fp16, CPU)
