"""What perfsuite has to know of this project: how a training is made."""

import os
from typing import Any

from lightning.pytorch import Trainer
from lightning_autoencoder.autoencoder import Autoencoder, ManualAutoencoder, waves

import perfsuite
from perfsuite.adapters.lightning_module import of_lightning

MANUAL = "MANUAL" in os.environ  # MANUAL=1 pytest benchmarks


@perfsuite.workload(
    name="manual-autoencoder" if MANUAL else "autoencoder",
    data="waves",
    convergence_seeds=3,
    convergence_steps=12,
    block_steps=1,
)
@of_lightning
def training(**arguments: Any) -> Any:
    trainer = Trainer(gradient_clip_val=None if MANUAL else 1.0, **arguments)
    return trainer, ManualAutoencoder() if MANUAL else Autoencoder(), waves()
