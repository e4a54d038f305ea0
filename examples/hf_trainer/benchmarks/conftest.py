"""What perfsuite has to know of this project: how a training is made."""

from typing import Any

from hf_trainer.finetuning import trainer
from transformers import Trainer

import perfsuite
from perfsuite.adapters.transformers_trainer import of_trainer


@perfsuite.workload(
    name="bert", data="sentences", convergence_seeds=3, convergence_steps=12, block_steps=1
)
@of_trainer
def training(**arguments: Any) -> Trainer:
    return trainer(**arguments)
