"""Training the GPT: each step accumulates the gradients of a few micro-batches."""

import torch
from torch import Tensor, nn

from small_gpt.counting import LENGTH, TOKENS, batches
from small_gpt.transformer import GPT

MICRO_BATCHES = 2


class Pretraining:
    """Network, optimizer and gradient scaler, and the step that uses them.

    Args:
        dtype: what autocast computes in; None trains in float32.
        compiled: whether the network goes through torch.compile.
    """

    def __init__(
        self, device: torch.device, dtype: torch.dtype | None, *, compiled: bool = False
    ) -> None:
        self.device, self.dtype = device, dtype
        self.model: nn.Module = GPT(TOKENS, LENGTH).to(device)
        if compiled:
            self.model = torch.compile(self.model)  # type: ignore[assignment]  # a module, too
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=3e-3, fused=True)
        self.scaler = torch.amp.GradScaler(device.type, enabled=dtype is torch.float16)

    def step(self, batch: dict[str, Tensor]) -> Tensor:
        """Learn from one batch, in parts, and return its loss."""
        self.optimizer.zero_grad()
        total = torch.zeros((), device=self.device)
        micro_batches = zip(*(part.chunk(MICRO_BATCHES) for part in batch.values()), strict=True)
        for input_ids, labels in micro_batches:
            with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None):
                loss = self.model(input_ids, labels)["loss"] / MICRO_BATCHES
            self.scaler.scale(loss).backward()
            total += loss.detach()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return total


def main(epochs: int = 10) -> None:
    """Train, and print the loss of each epoch."""
    torch.manual_seed(0)
    training = Pretraining(torch.device("cpu"), torch.bfloat16)
    for epoch in range(epochs):
        losses = [training.step(batch) for batch in batches(seed=0)]
        print(f"epoch {epoch}: loss {torch.stack(losses).mean():.3f}")


if __name__ == "__main__":
    main()
