"""Does it still train? Runs paired by seed and batch order, judged for equivalence.

The metric is the mean loss over the steps. Paired by seed it spreads much less than
unpaired; the final loss is no metric, since rounding alone moves it by several per cent. Beside
each pair a third run repeats the reference from weights that differ in the last digits: where
not even that is found to be equal, nothing can be judged.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import torch
from torch import Tensor, nn

from perfsuite.devices.device import Clock
from perfsuite.devices.precision import Precision
from perfsuite.judging.estimates import Estimate, mean_ratio
from perfsuite.judging.gates import (
    Outcome,
    Verdict,
    equivalent,
    finite,
    scale_within,
    skipped_steps,
)
from perfsuite.judging.stopping import Progress
from perfsuite.judging.thresholds import ConvergenceLimits
from perfsuite.training.data import Digits
from perfsuite.training.step import TrainStep, applied_steps
from perfsuite.training.workload import Workload

# By what share of itself each weight of the control differs: a few units in its last place.
PERTURBATION = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRun:
    """What one training run left behind."""

    losses: tuple[float, ...]  # one a step
    elapsed_s: float  # wall seconds of all steps together
    skipped_steps: int | None  # that the optimizer did not take; None if it keeps no count
    scales: tuple[float, ...]  # before the first step and after each; none without a scaler
    non_finite: tuple[str, ...]  # names of what was NaN or infinite at the end

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
    """Runs from the same weights over the same batches in the same order."""

    seed: int  # decides weights, dropout and order
    reference: TrainingRun
    candidate: TrainingRun  # what is judged
    control: TrainingRun  # the reference again, from perturbed weights


def train(step: TrainStep, batches: Sequence[tuple[Tensor, Tensor]], clock: Clock) -> TrainingRun:
    """Take a step a batch, of which there must be one; read the device only when all are done."""
    if not batches:
        raise ValueError("no batches to train on")
    before = applied_steps(step.optimizer)
    # Scaling a one tells the scale and, unlike `get_scale`, waits for nothing.
    one = torch.ones((), device=batches[0][1].device)
    scaled = step.scaler.is_enabled()
    clock.start()
    scales, losses = [step.scaler.scale(one)] * scaled, []
    for images, labels in batches:
        losses.append(step(images, labels))
        scales += [step.scaler.scale(one)] * scaled
    elapsed_s, _ = clock.stop()
    values = tuple(torch.stack(losses).tolist())
    applied = applied_steps(step.optimizer)
    bad_losses = [f"loss of step {i}" for i, loss in enumerate(values) if not math.isfinite(loss)]
    return TrainingRun(
        losses=values,
        elapsed_s=elapsed_s,
        skipped_steps=None if applied is None else len(values) - (applied - (before or 0)),
        scales=tuple(torch.stack(scales).tolist()) if scaled else (),
        non_finite=(*bad_losses, *non_finite(step.model)),
    )


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

    def run(precision: Precision, seed: int, *, perturbed: bool = False) -> TrainingRun:
        step = workload.step(precision, digits.labels.device, seed)
        if perturbed:
            perturb(step.model, seed)
        batches = list(islice(digits.batches(workload.batch_size, seed), steps))
        return train(step, batches, clock)

    pairs = []
    for done, seed in enumerate(seeds, start=1):
        first, second = run(reference, seed), run(candidate, seed)
        again = run(reference, seed, perturbed=True)
        pairs.append(SeedPair(seed=seed, reference=first, candidate=second, control=again))
        if progress is not None:
            progress(done, len(seeds))
    return tuple(pairs)


def perturb(model: nn.Module, seed: int) -> None:
    """Change each weight by about PERTURBATION of itself, as `seed` decides."""
    noise = torch.Generator().manual_seed(seed)  # of its own: dropout draws from torch's
    with torch.no_grad():
        for parameter in model.parameters():
            drawn = torch.randn(parameter.shape, generator=noise).to(parameter.device)
            parameter.mul_(1 + PERTURBATION * drawn)


def judge(pairs: Sequence[SeedPair], asked: ConvergenceLimits) -> tuple[Verdict, ...]:
    """Judge mean loss, finiteness, skipped steps and final scale; SampleError below two pairs."""
    return (_mean_loss(pairs, asked), *_health(pairs, asked))


def judge_twice(
    train: Callable[[Sequence[int]], tuple[SeedPair, ...]], seeds: int, asked: ConvergenceLimits
) -> tuple[tuple[SeedPair, ...], tuple[Verdict, ...]]:
    """Train and judge; where the mean loss is red, do it once more with fresh seeds.

    What the fresh seeds say of the mean loss stands, and the reason tells what the first
    said. Everything else is judged over both: no second try excuses a NaN. The price of two
    tries is that a difference right at the margin passes at twice the rate of alpha.
    """
    pairs = train(range(seeds))
    first, *health = judge(pairs, asked)
    # No second try makes up for another gate.
    if first.outcome is Outcome.PASS or any(each.outcome is not Outcome.PASS for each in health):
        return pairs, (first, *health)
    fresh = train(range(seeds, 2 * seeds))
    again = _mean_loss(fresh, asked)
    before = f"{first.outcome} {first.figure} before, these are fresh seeds"
    reason = "; ".join(filter(None, (again.reason, before)))
    both = (*pairs, *fresh)
    return both, (replace(again, reason=reason), *_health(both, asked))


def _mean_loss(pairs: Sequence[SeedPair], asked: ConvergenceLimits) -> Verdict:
    reference = [pair.reference.mean_loss for pair in pairs]
    candidate = [pair.candidate.mean_loss for pair in pairs]
    verdict = _equal_loss(candidate, reference, asked)
    itself = _equal_loss([pair.control.mean_loss for pair in pairs], reference, asked)
    # A candidate that is not finite fails, whatever the reference does.
    if itself.outcome is Outcome.PASS or not all(map(math.isfinite, candidate)):
        return verdict
    noise = f"the reference against itself, perturbed by {PERTURBATION:g}, is {itself.figure}"
    reason = f"{noise}: too noisy to judge by"
    return replace(verdict, outcome=Outcome.INCONCLUSIVE, reason=reason)


def _equal_loss(
    losses: Sequence[float], reference: Sequence[float], asked: ConvergenceLimits
) -> Verdict:
    """Judge by two one-sided tests, as one interval."""
    ratio = Estimate.exact(math.nan)
    if all(0 < loss < math.inf for loss in (*losses, *reference)):
        ratio = mean_ratio(losses, reference, confidence=1 - 2 * asked.alpha)
    return equivalent("mean_loss", ratio, asked.margin)


def _health(pairs: Sequence[SeedPair], asked: ConvergenceLimits) -> tuple[Verdict, ...]:
    candidates = [pair.candidate for pair in pairs]
    runs = [*candidates, *(pair.reference for pair in pairs)]
    skipped = [run.skipped_steps for run in candidates if run.skipped_steps is not None]
    # One run that took too many steps must not be hidden by one that skipped as many.
    worst = min(skipped) if skipped and min(skipped) < 0 else sum(skipped)
    scales = sorted(run.scales[-1] for run in candidates if run.scales)
    extremes = sorted({*scales[:1], *scales[-1:]})
    return (
        finite("finite", sorted({name for run in runs for name in run.non_finite})),
        skipped_steps(
            "skipped_steps",
            worst if len(skipped) == len(candidates) else None,
            sum(len(run.losses) for run in candidates),
            asked.max_skipped,
        ),
        *(scale_within("final_scale", each, asked.min_scale, asked.max_scale) for each in extremes),
    )
