"""Two networks against each other: one makes points, the other tells them from real ones."""

import math

import torch
from torch import Tensor, nn

NOISE = 8


def generator(width: int = 64) -> nn.Sequential:
    """Return a network from noise to points in the plane."""
    return nn.Sequential(
        nn.Linear(NOISE, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2)
    )


def discriminator(width: int = 64) -> nn.Sequential:
    """Return a network from points to a logit, positive for real ones."""
    return nn.Sequential(
        nn.Linear(2, width),
        nn.LeakyReLU(0.2),
        nn.Linear(width, width),
        nn.LeakyReLU(0.2),
        nn.Linear(width, 1),
    )


def real_points(seed: int, *, batches: int = 16, batch_size: int = 64) -> list[Tensor]:
    """Return batches of points near a circle."""
    random = torch.Generator().manual_seed(seed)
    angle = 2 * math.pi * torch.rand(batches, batch_size, generator=random)
    circle = torch.stack([angle.cos(), angle.sin()], dim=-1)
    return list(circle + 0.05 * torch.randn(circle.shape, generator=random))
