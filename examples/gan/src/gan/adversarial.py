"""Training both networks in turns, as in PyTorch's own tutorial of a DCGAN."""

import torch
from torch import Tensor, nn

from gan.adversaries import NOISE, discriminator, generator, real_points

loss_of = nn.functional.binary_cross_entropy_with_logits


class Adversaries:
    """Both networks with an optimizer each, one gradient scaler, and the step that uses them.

    Args:
        dtype: what autocast computes in; None trains in float32.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype | None) -> None:
        self.device, self.dtype = device, dtype
        self.generator = generator().to(device)
        self.discriminator = discriminator().to(device)
        self.optimizer_g, self.optimizer_d = (
            torch.optim.Adam(network.parameters(), lr=1e-3, betas=(0.5, 0.999), fused=True)
            for network in (self.generator, self.discriminator)
        )
        self.scaler = torch.amp.GradScaler(device.type, enabled=dtype is torch.float16)

    def autocast(self) -> torch.autocast:
        """Return the precision of the forward passes."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None)

    def step(self, real: Tensor) -> Tensor:
        """Let each network take a step, and return the sum of their losses."""
        self.optimizer_d.zero_grad()
        with self.autocast():
            fake = self.generator(torch.randn(len(real), NOISE, device=self.device))
            on_real = self.discriminator(real)
            on_fake = self.discriminator(fake.detach())
            loss_d = loss_of(on_real, torch.ones_like(on_real))
            loss_d = loss_d + loss_of(on_fake, torch.zeros_like(on_fake))
        self.scaler.scale(loss_d).backward()
        self.scaler.step(self.optimizer_d)

        self.optimizer_g.zero_grad()
        with self.autocast():
            on_fake = self.discriminator(fake)
            loss_g = loss_of(on_fake, torch.ones_like(on_fake))
        self.scaler.scale(loss_g).backward()
        self.scaler.step(self.optimizer_g)
        self.scaler.update()
        return loss_d.detach() + loss_g.detach()


def main(epochs: int = 10) -> None:
    """Train, and print the loss of each epoch."""
    torch.manual_seed(0)
    adversaries = Adversaries(torch.device("cpu"), torch.bfloat16)
    for epoch in range(epochs):
        losses = [adversaries.step(real) for real in real_points(seed=0)]
        print(f"epoch {epoch}: loss {torch.stack(losses).mean():.3f}")


if __name__ == "__main__":
    main()
