"""Trainings of Lightning for its adapter's tests; each import of the library takes seconds."""

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from perfsuite.adapters.lightning_module import of_lightning
from perfsuite.training.workload import MakeTraining


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


def scaled_on_cpu(precision: Any, **others: Any) -> dict[str, Any]:
    """Let a Trainer scale gradients of float16 on a CPU, where it would take bfloat16 instead."""
    if precision != "16-mixed":
        return {"precision": precision, **others}
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**20)
    return {"plugins": [MixedPrecision(precision, "cpu", scaler)], **others}


def made_by(kind: type[Automatic], *, scaled: bool = True, **own: Any) -> MakeTraining:
    change: Any = scaled_on_cpu if scaled else dict
    return of_lightning(
        lambda **arguments: (Trainer(**change(**arguments | own)), kind(), loader())
    )


def trained_alone(kind: type[Automatic], batches: Any, precision: str, **own: Any) -> Automatic:
    """Return a module that a Trainer fitted to these batches by itself."""
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False}
    quiet |= {"enable_progress_bar": False, "enable_model_summary": False}
    alone = Trainer(accelerator="cpu", max_epochs=1, **scaled_on_cpu(precision), **quiet, **own)
    module = kind()
    same: Any = [each for some in batches for each in some]
    alone.fit(module, DataLoader(same, batch_size=None))
    return module
