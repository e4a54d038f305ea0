"""A LightningModule takes the steps that its Trainer takes, and the probes find its parts."""

import importlib
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from probing import CPU, not_passed

from perfsuite.devices.precision import Precision
from perfsuite.training.batches import TrainingError
from perfsuite.training.workload import Workload

pytestmark = [
    pytest.mark.skipif(find_spec("lightning") is None, reason="lightning is not installed"),
    pytest.mark.filterwarnings("ignore"),  # Lightning's advice on loaders and sizes
]


@pytest.fixture(scope="module")
def trainings() -> Any:
    return importlib.import_module("lightning_trainings")


@pytest.mark.parametrize(
    ("kind", "own"),
    [
        ("Automatic", {"gradient_clip_val": 1.0}),
        ("Automatic", {"accumulate_grad_batches": 2}),
        ("Manual", {}),
    ],
    ids=["automatic", "accumulated", "manual"],
)
def test_probes_pass(kind: str, own: dict[str, Any], trainings: Any) -> None:
    workload = Workload(name="module", make=trainings.made_by(getattr(trainings, kind), **own))
    blamed = not_passed(workload, Precision.bf16)
    assert len(blamed) == 1
    assert blamed[0].startswith("NOT GATED")  # what Lightning does on its own account
    assert "Lightning" in blamed[0]


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
@pytest.mark.parametrize(
    ("kind", "accumulate"), [("Automatic", 1), ("Automatic", 2), ("Manual", 1)]
)
def test_it_learns_what_the_trainer_learns(
    kind: str, accumulate: int, precision: str, trainings: Any
) -> None:
    module, own = getattr(trainings, kind), {"accumulate_grad_batches": accumulate}
    made = trainings.made_by(module, **own)
    half = precision == "16-mixed"
    ours = {"32-true": Precision.fp32, "bf16-mixed": Precision.bf16, "16-mixed": Precision.fp16}
    arm = Workload(name="module", make=made).arm(ours[precision], CPU, seed=3)
    assert arm.scaler.is_enabled() is half
    batches = arm.take(4)
    for batch in batches:
        arm.step(batch)

    torch.manual_seed(3)
    alone = trainings.trained_alone(module, batches, precision, **own)
    (model,) = arm.models
    for found, wanted in zip(model.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(found, wanted)
    if half:  # the first steps overflowed, and the last did not
        assert 1 < arm.scaler.get_scale() < 2.0**20


def test_the_precision_that_lightning_takes_instead_is_refused(trainings: Any) -> None:
    """On a CPU it warns, and trains in bfloat16."""
    made = trainings.made_by(trainings.Automatic, scaled=False)
    with pytest.raises(TrainingError, match=r"^fp16 was .* trains in bf16-mixed, not in 16-mixed"):
        Workload(name="module", make=made).arm(Precision.fp16, CPU)


def test_a_trainer_that_is_built_without_what_is_handed_to_it_is_refused(trainings: Any) -> None:
    made = trainings.made_by(trainings.Automatic, precision="32-true")
    Workload(name="module", make=made).arm(Precision.fp32, CPU)
    with pytest.raises(TrainingError, match=r"32-true, not in bf16-mixed: build it with the arg"):
        Workload(name="module", make=made).arm(Precision.bf16, CPU)


def test_a_training_step_without_a_loss_is_told(trainings: Any) -> None:
    made = trainings.made_by(trainings.Silent)
    arm = Workload(name="silent", make=made).arm(Precision.fp32, CPU)
    with pytest.raises(TrainingError, match="training_step returned no loss"):
        arm.step(arm.take(1)[0])
