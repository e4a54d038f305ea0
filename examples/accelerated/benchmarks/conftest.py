"""What perfsuite has to know of this project: how a training is made."""

from functools import partial

from accelerate import Accelerator
from accelerated.rings import Loop

import perfsuite
from perfsuite.adapters.accelerate_loop import of_accelerator


@perfsuite.workload(
    name="rings", data="points", convergence_seeds=3, convergence_steps=12, block_steps=1
)
@partial(of_accelerator, accumulate=2)
def training(accelerator: Accelerator, seed: int) -> perfsuite.Training:
    loop = Loop(accelerator)
    state = [loop.model, loop.optimizer, loop.schedule]
    return perfsuite.Training(step=loop.step, batches=loop.loader, state=state, move=False)
