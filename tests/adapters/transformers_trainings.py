"""Trainings of Transformers for its adapter's tests; importing the library takes seconds."""

from pathlib import Path
from typing import Any

import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    Trainer,
    TrainingArguments,
)

from perfsuite.adapters.transformers_trainer import of_trainer
from perfsuite.devices.precision import Precision
from perfsuite.training.workload import MakeTraining, Training


def tiny_bert() -> BertForSequenceClassification:
    sizes: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 32, "vocab_size": 32}
    layers: dict[str, Any] = {
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 16,
    }
    return BertForSequenceClassification(
        BertConfig(**sizes, **layers, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    )


def sentences(number: int = 32) -> list[dict[str, Any]]:
    made = torch.Generator().manual_seed(0)
    ids = torch.randint(32, (number, 8), generator=made)
    return [{"input_ids": each, "labels": int(each[0]) % 2} for each in ids]


def trainer(folder: Path, **arguments: Any) -> Trainer:
    settings = {"per_device_train_batch_size": 4, "learning_rate": 1e-3} | arguments
    args = TrainingArguments(output_dir=str(folder), disable_tqdm=True, **settings)
    return Trainer(tiny_bert(), args, train_dataset=sentences())


def scaled(made: Trainer) -> Trainer:
    """Let a Trainer train in float16 as on a GPU, if it is to: on a CPU it has no scaler."""
    if made.args.fp16:
        made.accelerator.native_amp = True
        made.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**20)
    return made


def made_by(folder: Path, **own: Any) -> MakeTraining:
    return of_trainer(lambda **arguments: scaled(trainer(folder, **arguments, **own)))


def made_unscaled(folder: Path) -> MakeTraining:
    return of_trainer(lambda **arguments: trainer(folder, **arguments))


def decoder(precision: Precision, device: torch.device, _: int) -> Training:
    """Return a loop around a Llama, whose rotary angles are float32 products on purpose."""
    sizes: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "vocab_size": 32}
    layers: dict[str, Any] = {"num_hidden_layers": 1, "num_attention_heads": 2}
    model: Any = LlamaForCausalLM(LlamaConfig(**sizes, **layers))
    model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)

    def step(ids: torch.Tensor) -> torch.Tensor:
        optimizer.zero_grad()
        with precision.autocast(device):
            loss: torch.Tensor = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        return loss

    return Training(step=step, batches=[torch.randint(32, (4, 16))], state=[model, optimizer])
