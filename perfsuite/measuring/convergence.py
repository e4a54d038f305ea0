"""Does it still train? Runs paired by seed and batch order, judged for equivalence.

The metric is the mean loss over the steps. Paired by seed it spreads much less than
unpaired; the final loss is no metric, since rounding alone moves it by several per cent. Beside
each pair a third run repeats the reference from weights that differ in the last digits: where
not even that is found to be equal, nothing can be judged.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import nn

from perfsuite.devices.device import Clock
from perfsuite.devices.precision import Precision
from perfsuite.devices.ranks import ranks
from perfsuite.judging.estimates import Estimate, mean_ratio
from perfsuite.judging.gates import (
    Outcome,
    Verdict,
    equivalent,
    finite,
    not_gated,
    scale_within,
    skipped_steps,
)
from perfsuite.judging.stopping import ShowCount
from perfsuite.judging.thresholds import ConvergenceLimits
from perfsuite.measuring.masks import draw_other_masks, masks_differ
from perfsuite.training.arm import PERTURBATION, Arm, NotShownError
from perfsuite.training.parallel import local_of
from perfsuite.training.step import StepCounter

Side = TypeVar("Side")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRun:
    """What one training run left behind.

    Attributes:
        losses: one a step.
        elapsed_s: wall seconds of all steps together.
        skipped_steps: that the optimizer did not take; None if it keeps no count.
        scales: before the first step and after each; none without a scaler.
        non_finite: names of what was NaN or infinite at the end.
    """

    losses: tuple[float, ...]
    elapsed_s: float
    skipped_steps: int | None
    scales: tuple[float, ...]
    non_finite: tuple[str, ...]

    @classmethod
    def of_ranks(cls, runs: "Sequence[TrainingRun]") -> "TrainingRun":
        """Return what ranks that trained together left behind: losses on average, all faults."""
        if len(runs) == 1:
            return runs[0]
        skipped = [run.skipped_steps for run in runs if run.skipped_steps is not None]
        return cls(
            losses=tuple(map(statistics.fmean, zip(*(run.losses for run in runs), strict=True))),
            elapsed_s=max(run.elapsed_s for run in runs),
            skipped_steps=max(skipped, key=abs, default=None),
            scales=runs[0].scales,
            non_finite=tuple(
                f"{name} (rank {rank})" for rank, run in enumerate(runs) for name in run.non_finite
            ),
        )

    @property
    def mean_loss(self) -> float:
        """Of all steps: what convergence is judged by."""
        return statistics.fmean(self.losses)

    @property
    def step_s(self) -> float:
        """Wall seconds a step."""
        return self.elapsed_s / len(self.losses)


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedPair:
    """Runs from the same weights over the same batches in the same order.

    Attributes:
        seed: decides weights, dropout and order.
        reference: what is judged by.
        candidate: what is judged.
        control: the reference again, from perturbed weights, and with other dropout masks where
            the candidate has others.
    """

    seed: int
    reference: TrainingRun
    candidate: TrainingRun
    control: TrainingRun


def train(arm: Arm, batches: Sequence[Any], clock: Clock) -> TrainingRun:
    """Take a step a batch, of which there must be one; all ranks do so together."""
    return TrainingRun.of_ranks(ranks().each(train_here(arm, batches, clock)))


def train_here(arm: Arm, batches: Sequence[Any], clock: Clock) -> TrainingRun:
    """Return what this rank saw of `train`; the device is read only when all steps are done."""
    if not batches:
        raise ValueError("no batches to train on")
    scaler = arm.scaler
    scaled = scaler.is_enabled()
    counter = None
    with suppress(NotShownError):
        graphed = arm.written is not None
        counter = StepCounter(arm.optimizers, scaled=scaled, graphed=graphed)
    # Scaling a one tells the scale and, unlike `get_scale`, waits for nothing.
    one = torch.ones((), device=arm.device)
    clock.start()
    scales, losses = [scaler.scale(one)] * scaled, []
    for batch in batches:
        losses.append(arm.step(batch))
        scales += [scaler.scale(one)] * scaled
    elapsed_s, _ = clock.stop()
    arm.has_trained()
    values = tuple(torch.stack([loss.float().reshape(()) for loss in losses]).tolist())
    bad_losses = [f"loss of step {i}" for i, loss in enumerate(values) if not math.isfinite(loss)]
    return TrainingRun(
        losses=values,
        elapsed_s=elapsed_s,
        skipped_steps=None if counter is None else _skipped(counter.taken(), len(values)),
        scales=tuple(torch.stack(scales).tolist()) if scaled else (),
        non_finite=(*bad_losses, *non_finite(_models(arm))),
    )


def _skipped(taken: Sequence[int | None], steps: int) -> int | None:
    """Return how many steps were skipped, of the optimizer of which that is worst."""
    known = [steps - each for each in taken if each is not None]
    if len(known) < len(taken):
        return None
    return min(known) if min(known) < 0 else max(known)


def _models(arm: Arm) -> list[nn.Module]:
    try:
        return arm.models
    except NotShownError:
        return []


def non_finite(models: Sequence[nn.Module]) -> tuple[str, ...]:
    """Return the names of parameters and buffers that hold a NaN or an infinity.

    Buffers count: a NaN batch that the scaler skips leaves the parameters alone, and NaN in
    BatchNorm's running mean for good.
    """
    tensors = [t for model in models for t in (*model.named_parameters(), *model.named_buffers())]
    return tuple(name for name, tensor in tensors if not bool(local_of(tensor).isfinite().all()))


def train_pairs(
    make: Callable[[Precision, int], Arm],
    reference: Precision,
    candidate: Precision,
    *,
    seeds: Sequence[int],
    steps: int,
    clock: Clock,
    progress: ShowCount | None = None,
) -> tuple[SeedPair, ...]:
    """Train both precisions from each seed's weights over its batches.

    `make` returns a fresh arm of a precision and a seed.

    Raises:
        NotShownError: there is no model to perturb for the control.
    """

    def run(precision: Precision, seed: int, control: bool) -> TrainingRun:
        arm = make(precision, seed)
        batches = arm.take(steps)
        if control:
            arm.perturb(seed)
            if masks_differ(arm.device, candidate):
                draw_other_masks(seed)
        return train(arm, batches, clock)

    return paired(run, reference, candidate, seeds=seeds, progress=progress)


def paired(
    run: Callable[[Side, int, bool], TrainingRun],
    reference: Side,
    candidate: Side,
    *,
    seeds: Sequence[int],
    progress: ShowCount | None = None,
) -> tuple[SeedPair, ...]:
    """Return pairs of two sides; `run` is told the side, the seed, and whether it is a control."""
    pairs = []
    for done, seed in enumerate(seeds, start=1):
        first, second = run(reference, seed, False), run(candidate, seed, False)
        again = run(reference, seed, True)
        pairs.append(SeedPair(seed=seed, reference=first, candidate=second, control=again))
        if progress is not None:
            progress(done, len(seeds))
    return tuple(pairs)


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
    scales = sorted(run.scales[-1] for run in candidates if run.scales)
    extremes = sorted({*scales[:1], *scales[-1:]})
    return (
        finite("finite", sorted({name for run in runs for name in run.non_finite})),
        _skipped_of(candidates, asked),
        *(scale_within("final_scale", each, asked.min_scale, asked.max_scale) for each in extremes),
    )


def _skipped_of(runs: Sequence[TrainingRun], asked: ConvergenceLimits) -> Verdict:
    skipped = [run.skipped_steps for run in runs if run.skipped_steps is not None]
    if not skipped and not any(run.scales for run in runs):
        why = "no optimizer in `state` counts its steps, as Adam does in state['step']"
        return not_gated("skipped_steps", "unknown", why)
    # One run that took too many steps must not be hidden by one that skipped as many.
    worst = min(skipped) if skipped and min(skipped) < 0 else sum(skipped)
    known = len(skipped) == len(runs)
    steps = sum(len(run.losses) for run in runs)
    return skipped_steps("skipped_steps", worst if known else None, steps, asked.max_skipped)
