"""Training the classifier: mixed precision, clipped gradients, and a schedule."""

import torch
from torch import Tensor, nn

from image_classifier.resnet import ResNet
from image_classifier.stripes import CLASSES, load


class Trainer:
    """Network, optimizer, schedule and gradient scaler, and the step that uses them.

    Args:
        dtype: what autocast computes in; None trains in float32.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype | None) -> None:
        self.device, self.dtype = device, dtype
        self.model = ResNet(CLASSES).to(device)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=2e-3, fused=True)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, T_max=1000)
        self.scaler = torch.amp.GradScaler(device.type, enabled=dtype is torch.float16)

    def step(self, images: Tensor, labels: Tensor) -> Tensor:
        """Learn from one batch, and return its loss."""
        self.optimizer.zero_grad()
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None):
            loss = nn.functional.cross_entropy(self.model(images), labels)
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.model.parameters(), max_norm=1.0)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss


def main(epochs: int = 5) -> None:
    """Train, and print the loss of each epoch."""
    torch.manual_seed(0)
    trainer = Trainer(torch.device("cpu"), torch.bfloat16)
    loader = load(seed=0)
    for epoch in range(epochs):
        losses = [trainer.step(images, labels).detach() for images, labels in loader]
        trainer.schedule.step()
        print(f"epoch {epoch}: loss {torch.stack(losses).mean():.3f}")


if __name__ == "__main__":
    main()
