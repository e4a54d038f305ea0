"""Training as Accelerate documents it, with accumulation, clipping and a schedule."""

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


def rings() -> TensorDataset:
    """Return points, and in which of four rings each lies."""
    random = torch.Generator().manual_seed(0)
    points = 2 * torch.rand(512, 2, generator=random) - 1
    return TensorDataset(points, (points.norm(dim=1) * 3).long().clamp(max=3))


class Loop:
    """What an Accelerator prepared, and the step that uses it."""

    def __init__(self, accelerator: Accelerator) -> None:
        model = nn.Sequential(
            nn.Linear(2, 64), nn.GELU(), nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 4)
        )
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=1000)
        loader = DataLoader(rings(), batch_size=16, shuffle=True, drop_last=True)
        self.accelerator = accelerator
        self.model, self.optimizer, self.schedule, self.loader = accelerator.prepare(
            model, optimizer, schedule, loader
        )

    def step(self, batch: list[Tensor]) -> Tensor:
        """Learn from one batch, and return its loss; the optimizer may wait for the next."""
        points, labels = batch
        with self.accelerator.accumulate(self.model):
            loss = nn.functional.cross_entropy(self.model(points), labels)
            self.accelerator.backward(loss)
            if self.accelerator.sync_gradients:
                self.accelerator.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            self.schedule.step()
            self.optimizer.zero_grad()
        return loss


def main(epochs: int = 10) -> None:
    """Train, and print the loss of each epoch."""
    accelerator = Accelerator(mixed_precision="bf16", cpu=True, gradient_accumulation_steps=2)
    torch.manual_seed(0)
    loop = Loop(accelerator)
    for epoch in range(epochs):
        losses = [loop.step(batch).detach() for batch in loop.loader]
        print(f"epoch {epoch}: loss {torch.stack(losses).mean():.3f}")


if __name__ == "__main__":
    main()
