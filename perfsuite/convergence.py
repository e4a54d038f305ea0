"""Does it still train? Runs paired by seed and batch order, judged for equivalence.

The metric is the mean loss over the steps. Paired by seed its spread is a tenth of what it is
unpaired; the final loss is no metric, since rounding alone moves it by several per cent.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor, nn

from perfsuite.data import Digits
from perfsuite.gates import Verdict, equivalent, finite, scale_within, skipped_steps
from perfsuite.precision import Precision
from perfsuite.sampling import Progress
from perfsuite.stats import Estimate, SampleError, mean_ratio
from perfsuite.step import TrainStep
from perfsuite.thresholds import Convergence
from perfsuite.timing import Clock
from perfsuite.workload import Workload

__all__ = [
    "SeedPair",
    "Training",
    "applied_steps",
    "judge",
    "loss_ratio",
    "non_finite",
    "train",
    "train_pairs",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """What one training run left behind.

    Attributes:
        losses: one a step.
        elapsed_s: wall seconds of all steps together.
        skipped_steps: steps that the optimizer did not take, None if it keeps no count.
        final_scale: of the gradient scaler, None without one.
        non_finite: what was NaN or infinite at the end, by name.
    """

    losses: tuple[float, ...]
    elapsed_s: float
    skipped_steps: int | None
    final_scale: float | None
    non_finite: tuple[str, ...]

    @property
    def mean_loss(self) -> float:
        """The metric."""
        return statistics.fmean(self.losses)

    @property
    def step_s(self) -> float:
        """Wall seconds a step."""
        return self.elapsed_s / len(self.losses)


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedPair:
    """Two runs from the same weights over the same batches in the same order."""

    seed: int
    reference: Training
    candidate: Training


def train(step: TrainStep, batches: Sequence[tuple[Tensor, Tensor]], clock: Clock) -> Training:
    """Take a step a batch; read the device only when all are done.

    Raises:
        ValueError: there are no batches.
    """
    if not batches:
        raise ValueError("no batches to train on")
    before = applied_steps(step.optimizer)
    clock.start()
    losses = [step(images, labels) for images, labels in batches]
    elapsed_s, _ = clock.stop()
    values = tuple(torch.stack(losses).tolist())
    applied = applied_steps(step.optimizer)
    bad_losses = [f"loss of step {i}" for i, loss in enumerate(values) if not math.isfinite(loss)]
    return Training(
        losses=values,
        elapsed_s=elapsed_s,
        skipped_steps=None if applied is None else len(values) - (applied - (before or 0)),
        final_scale=step.scaler.get_scale() if step.scaler.is_enabled() else None,
        non_finite=(*bad_losses, *non_finite(step.model)),
    )


def applied_steps(optimizer: torch.optim.Optimizer) -> int | None:
    """Return how many steps the optimizer took, or None if it keeps no count.

    A fused optimizer under a gradient scaler is called every step and decides on the device
    whether to take it, so only its own count can tell.
    """
    counts = [int(state["step"]) for state in optimizer.state.values() if "step" in state]
    return max(counts) if counts else None


def non_finite(model: nn.Module) -> tuple[str, ...]:
    """Return the names of parameters and buffers that hold a NaN or an infinity.

    Buffers count: a NaN batch that the scaler skips leaves the parameters alone, and NaN in
    BatchNorm's running mean for good.
    """
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return tuple(name for name, tensor in tensors if not bool(tensor.isfinite().all()))


def train_pairs(
    workload: Workload,
    digits: Digits,
    reference: Precision,
    candidate: Precision,
    *,
    seeds: Sequence[int],
    steps: int,
    clock: Clock,
    progress: Progress | None = None,
) -> tuple[SeedPair, ...]:
    """Train both precisions from each seed's weights over its batches."""
    device = digits.labels.device
    pairs = []
    for done, seed in enumerate(seeds, start=1):
        runs = [
            train(
                workload.step(precision, device, seed),
                list(islice(digits.batches(workload.batch_size, seed), steps)),
                clock,
            )
            for precision in (reference, candidate)
        ]
        pairs.append(SeedPair(seed=seed, reference=runs[0], candidate=runs[1]))
        if progress is not None:
            progress(done, len(seeds))
    return tuple(pairs)


def loss_ratio(pairs: Sequence[SeedPair], *, alpha: float) -> Estimate:
    """Return the candidate's mean loss over the reference's.

    Its interval is the one of two one-sided tests at `alpha`.

    Raises:
        SampleError: fewer than two pairs, or a mean loss that is not finite and positive.
    """
    return mean_ratio(
        [pair.candidate.mean_loss for pair in pairs],
        [pair.reference.mean_loss for pair in pairs],
        confidence=1 - 2 * alpha,
    )


def judge(pairs: Sequence[SeedPair], asked: Convergence) -> tuple[Verdict, ...]:
    """Return the verdicts on mean loss, finiteness, skipped steps and final scale."""
    try:
        ratio = loss_ratio(pairs, alpha=asked.alpha)
    except SampleError:
        ratio = Estimate.exact(math.nan)
    trainings = [training for pair in pairs for training in (pair.reference, pair.candidate)]
    offenders = sorted({name for training in trainings for name in training.non_finite})
    verdicts = [equivalent("mean_loss", ratio, asked.margin), finite("finite", offenders)]
    candidates = [pair.candidate for pair in pairs]
    skipped = [run.skipped_steps for run in candidates if run.skipped_steps is not None]
    # One run that took too many steps must not be hidden by one that skipped as many.
    worst = min(skipped) if skipped and min(skipped) < 0 else sum(skipped)
    verdicts.append(
        skipped_steps(
            "skipped_steps",
            worst if len(skipped) == len(candidates) else None,
            sum(len(run.losses) for run in candidates),
            asked.max_skipped,
        )
    )
    scales = [run.final_scale for run in candidates if run.final_scale is not None]
    verdicts += [
        scale_within("final_scale", scale, asked.min_scale, asked.max_scale)
        for scale in _extremes(scales)
    ]
    return tuple(verdicts)


def _extremes(scales: Sequence[float]) -> list[float]:
    return sorted({min(scales), max(scales)}) if scales else []
