"""Probes of the optimizer: how often it steps, what it skips, and whether its steps teach."""

import math
import statistics
import warnings

import torch

from perfsuite.devices.precision import Precision
from perfsuite.judging.gates import Verdict
from perfsuite.probes.gradients import gradients_at_step, norm
from perfsuite.probes.probe import (
    Batch,
    ProbedStep,
    StepFactory,
    on_backward,
    settled,
    verdict,
    without_dropout,
)
from perfsuite.training.step import applied_steps

STEPS = 3
_CANARY_STEPS = 20
_CANARY_FALL = 0.03


def step_count(make_step: StepFactory, precision: Precision, batch: Batch) -> Verdict:
    """A call must be one step of the optimizer, neither none nor two.

    A call after which the scale fell was skipped, as it should be; not all may be.
    """
    step = settled(make_step(precision), batch)
    before = applied_steps(step.optimizer) or 0
    called: list[bool] = []
    skipped, scale = 0, step.scaler.get_scale()
    with step.optimizer.register_step_post_hook(lambda *_: called.append(True)):
        for _ in range(STEPS):
            step(*batch)
            skipped += step.scaler.get_scale() < scale
            scale = step.scaler.get_scale()
    # An optimizer without a count of its own, such as SGD, is judged by how often it was called.
    own = applied_steps(step.optimizer)
    count = len(called) if own is None else own - before
    remedy = "is the optimizer stepped twice, or is every step skipped?"
    found = f"{count} optimizer steps in {STEPS} calls"
    found += f", {skipped} skipped" if skipped else ""
    good = 0 < count == STEPS - skipped
    return verdict("step_count", found, "one optimizer step a call", good=good, remedy=remedy)


def skipped_step(make_step: StepFactory, precision: Precision, batch: Batch) -> Verdict:
    """A step whose gradients overflow must be skipped as a whole, learning rate included.

    The overflow is put into the gradient of the model's output, where it comes from in truth:
    the batch may be of any dtype, and BatchNorm's buffers stay clean.
    """
    if not precision.scales_gradients:
        return verdict("skipped_step", "no scaler", "a scaler in fp16 only", good=True)
    step = make_step(precision)
    step(*batch)

    def rates() -> list[float]:
        return [float(group["lr"]) for group in step.optimizer.param_groups]

    parameters = [p.detach().clone() for p in step.model.parameters()]
    count, lr, scale = applied_steps(step.optimizer), rates(), step.scaler.get_scale()
    with on_backward(step.model, lambda gradient: torch.full_like(gradient, math.inf)):
        step(*batch)
    wrong = [
        f"{name} was changed by a step that overflowed"
        for (name, now), then in zip(step.model.named_parameters(), parameters, strict=True)
        if not torch.equal(now.detach(), then)
    ]
    if (after := applied_steps(step.optimizer)) != count:
        said = f"the optimizer counts {after} steps after one that overflowed, {count} before"
        wrong.append(said)
    if (now := rates()) != lr:
        wrong.append(f"the learning rate went from {lr[0]:g} to {now[0]:g}")
    if not step.scaler.get_scale() < scale:
        wrong.append(f"the scale stayed at {scale:g}")
    return verdict(
        "skipped_step",
        wrong[0] if wrong else "the step was skipped, and the scale reduced",
        "a step that overflows is skipped as a whole",
        good=not wrong,
        remedy="call scaler.step(optimizer) and scaler.update(), and step the scheduler once an"
        " epoch, or where the scale did not fall, which takes a look at it on the host",
    )


def sgd_canary(make_step: StepFactory, precision: Precision, batch: Batch) -> Verdict:
    """With plain SGD in place of its optimizer, the step must learn one batch as fp32 does.

    Adam does not care by what factor its gradients are wrong; SGD does. The learning rate is
    one at which the first step would take 3 % off fp32's loss if the loss were linear: at more
    the last bits decide where a run goes. Dropout is off, since its masks on a GPU differ by
    dtype.
    """
    rate = _canary_rate(make_step, batch)
    if not math.isfinite(rate):
        return _no_canary("SGD was given no gradient, or no finite one")
    reference = _canary_losses(make_step(Precision.fp32), rate, batch)
    found = _canary_losses(make_step(precision), rate, batch)
    first, last = reference[0], statistics.fmean(reference[-5:])
    if not first - last > 0.02 * abs(first):  # also where either is NaN
        return _no_canary(f"fp32's loss went from {first:.4g} to {last:.4g}")
    bad = next((i for i, loss in enumerate(found) if not math.isfinite(loss)), None)
    if bad is not None:
        ratio, line = math.nan, f"loss {found[bad]} at step {bad}"
    else:
        ratio = (first - statistics.fmean(found)) / (first - statistics.fmean(reference))
        line = f"learns {ratio:.3f} times as fast as fp32"
    return verdict(
        "sgd_canary",
        line,
        "0.8 to 1.25 times as fast as fp32, with SGD",
        good=0.8 <= ratio <= 1.25,
        remedy="are gradients unscaled before they are clipped and used, and weights cast anew"
        " in every step?",
    )


def _no_canary(found: str) -> Verdict:
    return verdict(
        "sgd_canary",
        found,
        "fp32 learns the batch with SGD",
        good=None,
        remedy="nothing to hold it against: is the step right in fp32, does it use its attribute"
        " `optimizer`, and is the batch one that can be learnt?",
    )


def _with_sgd(step: ProbedStep, rate: float) -> ProbedStep:
    step.optimizer = torch.optim.SGD(step.model.parameters(), lr=rate, fused=True)
    return without_dropout(step)


def _canary_rate(make_step: StepFactory, batch: Batch) -> float:
    """Return the learning rate, NaN where SGD was given no gradient; it takes no step itself."""
    step = _with_sgd(make_step(Precision.fp32), 0.0)
    size = norm(gradients_at_step(step, batch))
    return _CANARY_FALL * abs(float(step(*batch))) / size**2 if size else math.nan


def _canary_losses(step: ProbedStep, rate: float, batch: Batch) -> list[float]:
    step = _with_sgd(step, rate)
    with warnings.catch_warnings():
        # A scheduler of the optimizer that was replaced misses its steps, and says so.
        warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step", UserWarning)
        return [float(step(*batch)) for _ in range(_CANARY_STEPS)]
