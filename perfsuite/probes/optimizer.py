"""Probes of the optimizer: how often it steps, what it skips, and whether its steps teach."""

import math
import statistics
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from perfsuite.devices.precision import Precision
from perfsuite.probes.gradients import gradients_at_step, norm
from perfsuite.probes.probe import (
    Found,
    MakeArm,
    and_more,
    anywhere,
    before_step,
    handed_scale,
    on_backward,
    over_ranks,
    probe,
    settled,
    told_by_all,
    without_dropout,
)
from perfsuite.probes.references import STEPS as LED
from perfsuite.probes.references import led
from perfsuite.training.arm import PERTURBATION, Arm, NotShownError
from perfsuite.training.parallel import local_of
from perfsuite.training.step import StepCounter, applied_steps

STEPS = 3
_CANARY_STEPS = 20
_CANARY_FALL = 0.03
_CANARY_RISE = 0.1  # in one step, as a share of the whole fall; at higher rates runs go astray
_CANARY_PARTS = (1, 1 / 4, 1 / 4)  # of the learning rate, as long as fp32 does not learn steadily


@probe(
    wanted="one step of each optimizer a call",
    remedy="is the optimizer stepped twice, or is every step skipped?",
)
def step_count(make: MakeArm, precision: Precision, batch: Any) -> Found:
    """A call must be one step of the optimizer, neither none nor two.

    A call after which the scale fell was skipped, as it should be; not all may be.
    """
    arm = settled(make(precision), batch)
    optimizers, scaler = arm.optimizers, arm.scaler
    counter = StepCounter(optimizers, scaled=scaler.is_enabled())
    skipped, scale = 0, scaler.get_scale()
    for _ in range(STEPS):
        arm.step(batch)
        skipped += scaler.get_scale() < scale
        scale = scaler.get_scale()
    counts = {each if each is not None else STEPS - skipped for each in counter.taken()}
    found = f"{' and '.join(map(str, sorted(counts)))} optimizer steps in {STEPS} calls"
    found += f" of {len(optimizers)} optimizers" * (len(optimizers) > 1)
    found += f", {skipped} skipped" * bool(skipped)
    return Found(found, good=counts == {STEPS - skipped} and skipped < STEPS)


@probe(
    wanted="a learning-rate schedule that steps at most once a training step",
    remedy="step the scheduler once for each step of the optimizer, outside of the loop over"
    " micro-batches",
)
def schedule(make: MakeArm, precision: Precision, batch: Any) -> Found:
    """A schedule of learning rates must not go on twice a step; once an epoch is as good."""
    epochs = led(make, precision, batch).epochs
    fast = [
        f"{name} stepped {n} times in {LED} training steps" for name, n in epochs.items() if n > LED
    ]
    if fast:
        return Found(and_more(fast), good=False)
    told = f"{len(epochs)} schedules step at most once a training step" if epochs else "no schedule"
    return Found(told, good=True)


@probe(
    wanted="a step that overflows is skipped as a whole",
    remedy="call scaler.step(optimizer) and scaler.update(), and step the scheduler once an"
    " epoch, or where the scale did not fall, which takes a look at it on the host",
)
def skipped_step(make: MakeArm, precision: Precision, batch: Any) -> Found:
    """A step whose gradients overflow must be skipped as a whole, learning rate included.

    The overflow is put into the gradient of the model's output, where it comes from in truth:
    the batch may be of any dtype, and BatchNorm's buffers stay clean.
    """
    if not precision.scales_gradients:
        return Found("no scaler", good=True, wanted="a scaler in fp16 only")
    arm = make(precision)
    optimizers, scaler = arm.optimizers, arm.scaler
    if anywhere(not scaler.is_enabled()):
        raise NotShownError("add the gradient scaler to `state` of perfsuite.Training")
    arm.step(batch)

    def rates() -> list[float]:
        return [float(group["lr"]) for each in optimizers for group in each.param_groups]

    before = {name: each.detach().clone() for name, each in arm.named_parameters().items()}
    counts, lr, scale = [applied_steps(each) for each in optimizers], rates(), scaler.get_scale()
    with on_backward(arm, lambda gradient: torch.full_like(gradient, math.inf)):
        arm.step(batch)
    wrong = [
        f"{name} was changed by a step that overflowed"
        for name, now in arm.named_parameters().items()
        if not torch.equal(now.detach(), before[name])
    ]
    for count, optimizer in zip(counts, optimizers, strict=True):
        if (after := applied_steps(optimizer)) != count:
            said = f"the optimizer counts {after} steps after one that overflowed, {count} before"
            wrong.append(said)
    if (now := rates()) != lr:
        wrong.append(f"the learning rate went from {lr[0]:g} to {now[0]:g}")
    if not scaler.get_scale() < scale:
        wrong.append(f"the scale stayed at {scale:g}")
    return Found(
        wrong[0] if wrong else "the step was skipped, and the scale reduced", good=not wrong
    )


@probe(
    wanted="0.8 to 1.25 times as fast as fp32, with SGD",
    remedy="are gradients unscaled before they are clipped and used, and weights cast anew"
    " in every step?",
)
def sgd_canary(make: MakeArm, precision: Precision, batch: Any) -> Found:
    """With plain SGD for its optimizer's step, the step must learn one batch as fp32 does.

    Adam does not care by what factor its gradients are wrong; SGD does. The learning rate is
    one at which the first step would take 3 % off fp32's loss if the loss were linear, or a
    quarter or a sixteenth of it where fp32 does not learn so, or not steadily: where its loss
    rises on its way the last bits decide where a run goes. Dropout is off, since its masks on a
    GPU differ by dtype. Where fp32 does not even learn like itself from perturbed weights,
    nothing is judged, and no other pace where its loss rises at any of these rates.
    """
    rate = _canary_rate(make, batch)
    if not math.isfinite(rate):
        return _no_canary("SGD was given no gradient, or no finite one")
    astray: tuple[float, list[float]] | None = None  # the lowest rate at which it learns unsteadily
    for part in _CANARY_PARTS:  # where the loss is far from linear, less will do
        rate *= part
        reference = _canary_losses(make(Precision.fp32), rate, batch)
        first, last = reference[0], statistics.fmean(reference[-5:])
        if first - last > 0.02 * abs(first):  # not where either is NaN
            rise = max(after - before for before, after in pairwise(reference))
            if rise <= _CANARY_RISE * (first - last):
                astray = None
                break
            astray = rate, reference
    else:
        if astray is None:
            went = f"fp32's loss went from {first:.4g} to {last:.4g}"
            if (many := len(make(Precision.fp32).optimizers)) > 1:  # as of adversaries
                raise NotShownError(f"{went}: the loss of {many} optimizers need not fall")
            return _no_canary(went)
        rate, reference = astray

    def pace(losses: list[float]) -> float:
        return (first - statistics.fmean(losses)) / (first - statistics.fmean(reference))

    perturbed = make(Precision.fp32)
    perturbed.perturb(seed=0)
    if not 0.9 <= (itself := pace(_canary_losses(perturbed, rate, batch))) <= 1.1:
        raise NotShownError(
            f"fp32 learns {itself:.3f} times as fast as itself with weights perturbed by"
            f" {PERTURBATION:g}: this step is too sensitive to be judged so"
        )
    found = _canary_losses(make(precision), rate, batch)
    bad = next((i for i, loss in enumerate(found) if not math.isfinite(loss)), None)
    if bad is not None:
        return Found(f"loss {found[bad]} at step {bad}", good=False)
    ratio = pace(found)
    good = 0.8 <= ratio <= 1.25
    if astray is not None and not good:
        raise NotShownError(
            f"it learns {ratio:.3f} times as fast as fp32, whose own loss rises on its way at any"
            " rate: this step is too sensitive to be judged so"
        )
    return Found(f"learns {ratio:.3f} times as fast as fp32", good=good)


def _no_canary(found: str) -> Found:
    remedy = (
        "nothing to hold it against: is the step right in fp32, is its optimizer in its state,"
        " and is the batch one that can be learnt?"
    )
    return Found(found, None, "fp32 learns the batch with SGD", remedy)


def _with_sgd(arm: Arm, rate: float) -> Arm:
    """Return the arm with SGD's steps in place of its optimizers', hooks and scaling as they were.

    By hooks, since whoever wrapped a step earlier, as libraries do, would not call another one.
    """
    for optimizer in arm.optimizers:
        _Sgd(optimizer, rate)
    return without_dropout(arm)


class _Sgd:
    """Puts what SGD would have made of the weights where an optimizer's step put its own."""

    def __init__(self, optimizer: torch.optim.Optimizer, rate: float) -> None:
        self._rate = rate
        self._before: list[tuple[nn.Parameter, Tensor, Tensor | None]] = []
        before_step(optimizer, self._remember)
        optimizer.register_step_post_hook(self._replace)

    def _remember(self, optimizer: torch.optim.Optimizer) -> None:
        """Keep the weights, and gradients that a fused optimizer unscales in place."""
        found_inf = getattr(optimizer, "found_inf", None)
        skipped = found_inf is not None and bool(found_inf)
        scale = handed_scale(optimizer)
        self._before = [
            (
                p,
                local_of(p.detach()).clone(),
                None if scale == 1 or p.grad is None else local_of(p.grad) / scale,
            )
            for group in optimizer.param_groups
            for p in group["params"] * (not skipped)
        ]

    def _replace(self, *_: Any) -> None:
        """Step with the gradients as they are now, which another hook may have changed."""
        with torch.no_grad():
            for parameter, value, unscaled in self._before:
                gradient = parameter.grad if unscaled is None else unscaled
                if gradient is not None:
                    local_of(parameter).copy_(value - self._rate * local_of(gradient))


def _canary_rate(make: MakeArm, batch: Any) -> float:
    """Return the learning rate, NaN where SGD was given no gradient; it takes no step itself."""
    arm = _with_sgd(make(Precision.fp32), 0.0)
    size = norm(gradients_at_step(arm, batch))
    loss = abs(float(arm.step(batch)))
    return over_ranks(_CANARY_FALL * loss / size**2 if size else math.nan)


def _canary_losses(arm: Arm, rate: float, batch: Any) -> list[float]:
    arm = _with_sgd(arm, rate)
    losses = [float(arm.step(batch)) for _ in range(_CANARY_STEPS)]
    return [statistics.fmean(each) for each in zip(*told_by_all(losses), strict=True)]
