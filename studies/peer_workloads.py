"""Two trainings of other libraries, as their users write them: ResNet-50 and a small GPT.

Nothing is downloaded: weights are random, images noise, and tokens count up. Of perfsuite they need
public names alone.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from perfsuite import Precision, Training, Workload

TOKENS, LENGTH = 1024, 128


class PlainStep:
    """A training step as manuals have it; `loss_of` makes a loss of the model and a batch."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        precision: Precision,
        loss_of: Callable[[nn.Module, Any], Tensor],
    ) -> None:
        self.model, self.optimizer, self.loss_of = model, optimizer, loss_of
        self.dtype = precision.autocast_dtype
        self.kind = next(model.parameters()).device.type
        self.scaler = torch.amp.GradScaler(self.kind, enabled=self.dtype is torch.float16)

    def __call__(self, batch: Any) -> Tensor:
        """Learn from a batch, and return its loss."""
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.kind, self.dtype, enabled=self.dtype is not None):
            loss = self.loss_of(self.model, batch)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss.detach()


def classified(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Return the loss of a classifier of images."""
    images, labels = batch
    return nn.functional.cross_entropy(model(images), labels)


def continued(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Return the loss of a language model, which computes it itself."""
    loss: Tensor = model(**batch).loss
    return loss


def resnet50(
    precision: Precision, device: torch.device, seed: int, *, images: int, side: int = 224
) -> Training:
    """Return torchvision's ResNet-50 on noise, with the optimizer of its own recipe."""
    from torchvision.models import resnet50 as network

    model = network().to(device).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    noise = torch.Generator().manual_seed(seed)
    batch = (
        torch.rand(images, 3, side, side, generator=noise),
        torch.randint(1000, (images,), generator=noise),
    )
    step = PlainStep(model, optimizer, precision, classified)
    return Training(step=step, batches=[batch], state=[model, optimizer, step.scaler])


def gpt2(
    precision: Precision, device: torch.device, seed: int, *, texts: int, width: int = 256
) -> Training:
    """Return a GPT-2 of Transformers with four layers, on tokens that count up."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=TOKENS,
        n_positions=LENGTH,
        n_embd=width,
        n_layer=4,
        n_head=4,
        bos_token_id=0,
        eos_token_id=0,
    )
    model: nn.Module = GPT2LMHeadModel(config)
    model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
    first = torch.arange(texts).unsqueeze(1) + seed
    tokens = (first + torch.arange(LENGTH)) % TOKENS
    step = PlainStep(model, optimizer, precision, continued)
    return Training(
        step=step,
        batches=[{"input_ids": tokens, "labels": tokens.clone()}],
        state=[model, optimizer, step.scaler],
        tokens=lambda batch: batch["input_ids"].numel(),
    )


def peer_workloads(*, large: bool) -> tuple[Workload, ...]:
    """Return both, with batches for a GPU where they are to be `large`, or for a CPU."""
    images, texts = (64, 64) if large else (2, 8)
    return (
        Workload(
            name="resnet50",
            data=f"{images} x 224x224 noise",
            make=partial(resnet50, images=images),
            learnable=False,
            block_steps=1,
        ),
        Workload(
            name="gpt2-small",
            data=f"{texts} x {LENGTH} tokens",
            make=partial(gpt2, texts=texts),
            block_steps=4,
        ),
    )
