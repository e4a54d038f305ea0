"""A Trainer takes the steps that it takes by itself, and the probes find its parts."""

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")

import torch
from probing import CPU, not_passed
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

from perfsuite.adapters.transformers_trainer import of_trainer
from perfsuite.devices.precision import Precision
from perfsuite.training.workload import Make, Workload


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


def made_by(folder: Path, **own: Any) -> Make:
    return of_trainer(lambda **arguments: trainer(folder, **arguments, **own))


@pytest.mark.parametrize("accumulate", [1, 2])
def test_probes_pass(accumulate: int, tmp_path: Path) -> None:
    make = made_by(tmp_path, gradient_accumulation_steps=accumulate)
    assert not_passed(Workload(name="bert", make=make), Precision.bf16) == []


@pytest.mark.parametrize("accumulate", [1, 2])
def test_it_learns_what_the_trainer_learns(accumulate: int, tmp_path: Path) -> None:
    own = {"gradient_accumulation_steps": accumulate, "max_steps": 4}
    arm = Workload(name="bert", make=made_by(tmp_path, **own)).arm(Precision.fp32, CPU, seed=3)
    for batch in arm.take(4):
        arm.step(batch)

    torch.manual_seed(3)
    alone = trainer(tmp_path, **own, use_cpu=True, seed=3, data_seed=3, report_to="none")
    alone.train()
    (model,) = arm.models
    assert alone.model is not None
    for found, wanted in zip(model.parameters(), alone.model.parameters(), strict=True):
        torch.testing.assert_close(found, wanted)
