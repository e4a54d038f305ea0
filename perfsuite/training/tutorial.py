"""The tutorial's network on handwritten digits, at its full width and at an eighth of it."""

from collections.abc import Iterable
from functools import cache
from typing import Any

import torch
from torch import nn

from perfsuite.devices.precision import Precision
from perfsuite.training.cfg import TUTORIAL_CFG, scale_width
from perfsuite.training.data import SYNTHETIC, load_digits
from perfsuite.training.model import build_model
from perfsuite.training.step import TrainStep
from perfsuite.training.workload import Training, Workload

# Cfg, images in a batch, and what of `Workload` differs from its defaults.
_KINDS: dict[str, tuple[Any, int, dict[str, int]]] = {
    "tutorial": (
        TUTORIAL_CFG,
        128,
        {"block_steps": 10, "convergence_steps": 100, "convergence_seeds": 8},
    ),
    "tiny": (scale_width(TUTORIAL_CFG, 8), 16, {"block_steps": 2}),
}

digits_on = cache(load_digits)
"""Read once by a process, for whatever is forked from it too."""


def fused_adam(
    parameters: Iterable[nn.Parameter], *, capturable: bool = False
) -> torch.optim.Optimizer:
    """Return Adam, fused, so that a gradient scaler need not wait for it."""
    # Over 40 steps of 16 images a doubled step, a fault that has to be seen, moves the mean
    # loss several times as far at this learning rate as at the default of 1e-3.
    return torch.optim.Adam(parameters, lr=5e-4, fused=True, capturable=capturable)


def tutorial_workload(name: str, data: str = "mnist5k", *, graph: bool = False) -> Workload:
    """Return the workload "tutorial" or "tiny" on digits of a source; see `load_digits`.

    With `graph` its step is captured, and launched at once: see `Training`.
    """
    cfg, batch_size, portions = _KINDS[name]

    def make(precision: Precision, device: torch.device, seed: int) -> Training:
        # channels_last and the like are the model's own business: it is moved, nothing more.
        model = build_model(cfg).to(device).train()
        optimizer = fused_adam(model.parameters(), capturable=graph)
        step = TrainStep(model, optimizer, precision=precision, graph=graph)
        batches = digits_on(data, device).batches(batch_size, seed)
        return Training(step=step, batches=batches, state=[model, step.optimizer, step.scaler])

    learnable = data != SYNTHETIC
    # Of two samples, the smallest number that can be normalised over, or bfloat16 that a CPU
    # emulates would take minutes.
    return Workload(
        name=name, make=make, data=data, learnable=learnable, ledger_samples=2, **portions
    )
