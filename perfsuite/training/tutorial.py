"""The tutorial's network on handwritten digits, at its full width and at an eighth of it."""

from collections.abc import Iterable
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from perfsuite.devices.precision import Precision, backend_flags
from perfsuite.devices.ranks import ranks
from perfsuite.training.cfg import TUTORIAL_CFG, scale_width
from perfsuite.training.data import SYNTHETIC, Digits, load_digits
from perfsuite.training.model import build_model
from perfsuite.training.parallel import Parallel
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
    "sketch": (
        scale_width(TUTORIAL_CFG, 8),
        16,
        # So that two steps may be skipped while the scale of float16 settles.
        {"block_steps": 2, "convergence_steps": 34, "convergence_seeds": 3},
    ),
}

_JUDGED_AT_ONCE = 250  # images, which without a backward pass take less memory than a batch

digits_on = cache(load_digits)
"""Read once by a process, for whatever is forked from it too."""


def fused_adam(
    parameters: Iterable[nn.Parameter], *, capturable: bool = False
) -> torch.optim.Optimizer:
    """Return Adam, fused, so that a gradient scaler need not wait for it."""
    # Over 40 steps of 16 images a doubled step, a fault that has to be seen, moves the mean
    # loss several times as far at this learning rate as at the default of 1e-3.
    return torch.optim.Adam(parameters, lr=5e-4, fused=True, capturable=capturable)


def tutorial_workload(
    name: str,
    data: str = "mnist5k",
    *,
    graph: bool = False,
    hold_out: bool = False,
    backend: str | None = None,
    parallel: Parallel | None = None,
) -> Workload:
    """Return the workload "tutorial" or "tiny" on digits of a source; see `load_digits`.

    "sketch" is "tiny", trained for less: for a device that is simulated, whose values the CPU
    computes.

    With `graph` its step is captured, and launched at once: see `Training`. With `hold_out` every
    tenth digit is none to train on, and the training can be judged by them. With `backend` the
    model is compiled, with `parallel` ranks train it together, each on its own batches of one
    order: see `TrainStep`.
    """
    cfg, batch_size, portions = _KINDS[name]

    def make(precision: Precision, device: torch.device, seed: int) -> Training:
        # channels_last and the like are the model's own business: it is moved, nothing more.
        model = build_model(cfg).to(device).train()
        optimizer = fused_adam(model.parameters(), capturable=graph)
        step = TrainStep(
            model, optimizer, precision=precision, graph=graph, backend=backend, parallel=parallel
        )
        at = ranks().seat
        share = {} if parallel is None else {"rank": at.rank, "ranks": at.ranks}
        digits = digits_on(data, device)
        digits, held_out = digits.split() if hold_out else (digits, None)
        return Training(
            step=step,
            batches=digits.epochs(batch_size, seed, **share),
            state=[step.model, step.optimizer, step.scaler],
            right=None if held_out is None else partial(right_of, step, held_out),
        )

    learnable = data != SYNTHETIC
    # Of two samples, the smallest number that can be normalised over, or bfloat16 that a CPU
    # emulates would take minutes.
    return Workload(
        name=name,
        make=make,
        data=f"{data} less a tenth" if hold_out else data,
        learnable=learnable,
        ledger_samples=2,
        **portions,
    )


def right_of(step: TrainStep, digits: Digits) -> Tensor:
    """Return which digits the step's model tells, a bool each, in the step's own precision."""
    was_training, flags = step.model.training, backend_flags(step.precision)
    step.model.eval()
    try:
        with torch.no_grad(), flags, step.precision.autocast(step.device):
            images = digits.images.split(_JUDGED_AT_ONCE)
            found = torch.cat([step.model(each).argmax(1) for each in images])
    finally:
        step.model.train(was_training)
    return found == digits.labels
