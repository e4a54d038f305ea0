"""Images of stripes: the class is the direction in which they run."""

import math

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

CLASSES = 4
SIZE = 16


class Stripes(Dataset[tuple[Tensor, int]]):
    """Noisy stripes in one of a few directions; the same image for the same index."""

    def __init__(self, images: int) -> None:
        self.images = images

    def __len__(self) -> int:
        """Return how many images there are."""
        return self.images

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return an image and its class."""
        noise = torch.Generator().manual_seed(index)
        label = index % CLASSES
        angle = math.pi * label / CLASSES
        at = torch.arange(SIZE, dtype=torch.float32)
        waves = torch.sin(math.cos(angle) * at[:, None] + math.sin(angle) * at[None, :])
        return waves + 0.5 * torch.randn(3, SIZE, SIZE, generator=noise), label


def load(seed: int, *, images: int = 128, batch_size: int = 16) -> DataLoader[tuple[Tensor, int]]:
    """Return batches in an order that the seed decides."""
    order = torch.Generator().manual_seed(seed)
    return DataLoader(Stripes(images), batch_size, shuffle=True, generator=order, drop_last=True)
