"""A LightningModule takes the steps that its Trainer takes, and the probes find its parts."""

from typing import Any

import pytest

pytest.importorskip("lightning")

import torch
from lightning.pytorch import LightningModule, Trainer
from probing import CPU, not_passed
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from perfsuite.adapters.lightning_module import of_lightning
from perfsuite.devices.precision import Precision
from perfsuite.training.batches import TrainingError
from perfsuite.training.workload import Make, Workload

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's advice on loaders and sizes


class Automatic(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))

    def loss_of(self, batch: list[Tensor]) -> Tensor:
        inputs, labels = batch
        return nn.functional.cross_entropy(self.net(inputs), labels)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        loss = self.loss_of(batch)
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=1e-2)
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


class Manual(Automatic):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        optimizer: Any = self.optimizers()
        optimizer.zero_grad()
        loss = self.loss_of(batch)
        self.manual_backward(loss)
        self.clip_gradients(optimizer, gradient_clip_val=1.0)
        optimizer.step()
        return loss


class Silent(Manual):
    def training_step(self, batch: list[Tensor], batch_idx: int) -> None:
        super().training_step(batch, batch_idx)


def loader() -> Any:
    data = TensorDataset(torch.randn(32, 8), torch.arange(32) % 4)
    return DataLoader(data, batch_size=4, shuffle=True, drop_last=True)


def made_by(kind: type[Automatic], **own: Any) -> Make:
    return of_lightning(lambda **arguments: (Trainer(**arguments, **own), kind(), loader()))


@pytest.mark.parametrize(
    ("kind", "own"),
    [
        (Automatic, {"gradient_clip_val": 1.0}),
        (Automatic, {"accumulate_grad_batches": 2}),
        (Manual, {}),
    ],
    ids=["automatic", "accumulated", "manual"],
)
def test_probes_pass(kind: type[Automatic], own: dict[str, Any]) -> None:
    workload = Workload(name="module", make=made_by(kind, **own))
    blamed = not_passed(workload, Precision.bf16)
    assert len(blamed) == 1
    assert blamed[0].startswith("NOT GATED")  # what Lightning does on its own account
    assert "Lightning" in blamed[0]


@pytest.mark.parametrize("kind", [Automatic, Manual])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_it_learns_what_the_trainer_learns(kind: type[Automatic], accumulate: int) -> None:
    if kind is Manual and accumulate > 1:
        pytest.skip("Lightning accumulates in automatic optimization only")
    made = made_by(kind, accumulate_grad_batches=accumulate)
    arm = Workload(name="module", make=made).arm(Precision.fp32, CPU, seed=3)
    batches = arm.take(4)
    for batch in batches:
        arm.step(batch)

    torch.manual_seed(3)
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False}
    quiet |= {"enable_progress_bar": False, "enable_model_summary": False}
    alone = Trainer(accelerator="cpu", max_epochs=1, accumulate_grad_batches=accumulate, **quiet)
    module = kind()
    same: Any = [each for some in batches for each in some]
    alone.fit(module, DataLoader(same, batch_size=None))
    (model,) = arm.models
    for found, wanted in zip(model.parameters(), module.parameters(), strict=True):
        torch.testing.assert_close(found, wanted)


def test_a_training_step_without_a_loss_is_told() -> None:
    arm = Workload(name="silent", make=made_by(Silent)).arm(Precision.fp32, CPU)
    with pytest.raises(TrainingError, match="training_step returned no loss"):
        arm.step(arm.take(1)[0])
