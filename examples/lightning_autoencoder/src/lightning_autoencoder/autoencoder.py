"""A denoising autoencoder, by automatic optimization, and by manual optimization."""

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


def waves() -> DataLoader[tuple[Tensor, ...]]:
    """Return batches of sine waves of random length."""
    random = torch.Generator().manual_seed(0)
    lengths = 0.2 + torch.rand(512, 1, generator=random)
    data = TensorDataset(torch.sin(lengths * torch.arange(32)))
    return DataLoader(data, batch_size=16, shuffle=True, drop_last=True)


class Autoencoder(LightningModule):
    """Squeezes waves through four numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 4))
        self.decoder = nn.Sequential(nn.Linear(4, 64), nn.GELU(), nn.Linear(64, 32))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        """Return the error of one batch."""
        (wave,) = batch
        loss = nn.functional.mse_loss(self.decoder(self.encoder(wave)), wave)
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return what the Trainer steps."""
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


class ManualAutoencoder(Autoencoder):
    """The same, with an optimizer for each half."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        """Let each half take a step, and return the error."""
        optimizers: Any = self.optimizers()
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss = super().training_step(batch, batch_idx)
        self.manual_backward(loss)
        for optimizer in optimizers:
            optimizer.step()
        return loss

    def configure_optimizers(self) -> Any:
        """Return both optimizers."""
        halves = (self.encoder, self.decoder)
        return [torch.optim.AdamW(half.parameters(), lr=1e-3) for half in halves]


if __name__ == "__main__":
    Trainer(max_epochs=5, precision="bf16-mixed").fit(Autoencoder(), waves())
