"""A text to learn from: tokens that count up, from a random first one, in random steps."""

import torch
from torch import Tensor

TOKENS = 32
LENGTH = 16


def batches(seed: int, *, count: int = 16, batch_size: int = 8) -> list[dict[str, Tensor]]:
    """Return batches of ``input_ids`` and the ``labels`` that follow them."""
    random = torch.Generator().manual_seed(seed)
    first = torch.randint(TOKENS, (count, batch_size, 1), generator=random)
    stride = torch.randint(1, 4, (count, batch_size, 1), generator=random)
    text = (first + stride * torch.arange(LENGTH + 1)) % TOKENS
    return [{"input_ids": each[:, :-1], "labels": each[:, 1:]} for each in text]
