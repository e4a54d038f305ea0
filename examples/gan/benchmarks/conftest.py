"""What perfsuite has to know of this project: how a training is made."""

import torch
from gan.adversarial import Adversaries
from gan.adversaries import real_points

import perfsuite


@perfsuite.workload(
    name="gan", data="circle", convergence_seeds=3, convergence_steps=12, block_steps=1
)
def training(precision: perfsuite.Precision, device: torch.device, seed: int) -> perfsuite.Training:
    both = Adversaries(device, precision.autocast_dtype)
    return perfsuite.Training(
        step=both.step,
        batches=real_points(seed),
        state=[
            *(both.generator, both.optimizer_g),
            *(both.discriminator, both.optimizer_d),
            both.scaler,
        ],
    )
