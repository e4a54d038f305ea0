"""What perfsuite has to know of this project: how a training is made."""

import torch
from image_classifier.stripes import load
from image_classifier.training import Trainer

import perfsuite


@perfsuite.workload(
    name="resnet", data="stripes", convergence_seeds=3, convergence_steps=12, block_steps=1
)
def training(precision: perfsuite.Precision, device: torch.device, seed: int) -> perfsuite.Training:
    trainer = Trainer(device, precision.autocast_dtype)
    return perfsuite.Training(
        step=lambda batch: trainer.step(*batch),
        batches=load(seed),
        state=[trainer.model, trainer.optimizer, trainer.schedule, trainer.scaler],
    )
