"""Training a tiny BERT to tell whether the first token of a sentence comes again."""

from typing import Any

import torch
from torch import Tensor
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

TOKENS, LENGTH = 16, 12


def sentences(number: int = 256) -> list[dict[str, Tensor]]:
    """Return tokens, and whether the first comes again."""
    random = torch.Generator().manual_seed(0)
    ids = torch.randint(TOKENS, (number, LENGTH), generator=random)
    again = (ids[:, 1:] == ids[:, :1]).any(dim=1).long()
    return [{"input_ids": x, "labels": y} for x, y in zip(ids, again, strict=True)]


def tiny_bert() -> BertForSequenceClassification:
    """Return a BERT with random weights; nothing is downloaded."""
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=TOKENS,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=LENGTH,
        )
    )


def trainer(**arguments: Any) -> Trainer:
    """Return what trains it; `arguments` are those of TrainingArguments."""
    settings = TrainingArguments(
        per_device_train_batch_size=8,
        gradient_accumulation_steps=2,
        learning_rate=1e-3,
        max_grad_norm=1.0,
        max_steps=1000,
        **arguments,
    )
    return Trainer(tiny_bert(), settings, train_dataset=sentences())


if __name__ == "__main__":
    trainer(bf16=True, use_cpu=True, report_to="none").train()
