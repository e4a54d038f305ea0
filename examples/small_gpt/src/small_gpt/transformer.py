"""A decoder of transformer blocks, which predicts the next token."""

import torch
from torch import Tensor, nn


class Layer(nn.Module):
    """Causal attention and a feed-forward network, each added to its input."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attend = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.feed = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the shape (batch, position, width) of the input."""
        joined = self.attend(self.norm1(x)).unflatten(-1, (3, self.heads, -1))
        query, key, value = joined.permute(2, 0, 3, 1, 4)
        seen = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.project(seen.transpose(1, 2).flatten(-2))
        out: Tensor = x + self.feed(self.norm2(x))
        return out


class GPT(nn.Module):
    """Embeddings, layers and the head; its output is a dict, as in many libraries."""

    def __init__(self, tokens: int, length: int, width: int = 32, layers: int = 2) -> None:
        super().__init__()
        self.token = nn.Embedding(tokens, width)
        self.position = nn.Embedding(length, width)
        self.layers = nn.Sequential(*(Layer(width, heads=2) for _ in range(layers)))
        self.head = nn.Linear(width, tokens)

    def forward(self, input_ids: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the logits and the loss."""
        at = torch.arange(input_ids.shape[1], device=input_ids.device)
        logits = self.head(self.layers(self.token(input_ids) + self.position(at)))
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        return {"loss": loss, "logits": logits}
