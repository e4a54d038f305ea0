"""What perfsuite has to know of this project: how a training is made."""

import os

import torch
from small_gpt.counting import batches
from small_gpt.pretraining import Pretraining

import perfsuite

COMPILED = "COMPILED" in os.environ  # COMPILED=1 pytest benchmarks


@perfsuite.workload(
    name="gpt-compiled" if COMPILED else "gpt",
    data="counting",
    convergence_seeds=3,
    convergence_steps=16,
    block_steps=1,
)
def training(precision: perfsuite.Precision, device: torch.device, seed: int) -> perfsuite.Training:
    pretraining = Pretraining(device, precision.autocast_dtype, compiled=COMPILED)
    return perfsuite.Training(
        step=pretraining.step,
        batches=batches(seed),
        state=[pretraining.model, pretraining.optimizer, pretraining.scaler],
        tokens=lambda batch: batch["labels"].numel(),
    )
