"""Gates: pure functions from an estimate and a threshold to a verdict.

FAIL needs the whole interval beyond the threshold, PASS the whole interval on the good side.
In between is INCONCLUSIVE, which is not green. A gate without a threshold is NOT GATED.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from perfsuite.judging.estimates import Estimate
from perfsuite.judging.throttling import Sifted


class Outcome(StrEnum):
    """What a gate says."""

    PASS = "PASS"
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"
    NOT_GATED = "NOT GATED"

    @property
    def rank(self) -> int:
        """Where it stands in a list that has the worst first, from 0."""
        worst_first = (Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.NOT_GATED, Outcome.PASS)
        return worst_first.index(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What one gate says of one figure.

    Attributes:
        gate: the gate's name, as in thresholds.toml.
        outcome: PASS, FAIL, INCONCLUSIVE or NOT GATED.
        figure: the measured figure with unit and interval, ready to read.
        threshold: what was asked of it, ready to read.
        reason: why the outcome is what it is, where figure and threshold do not say it.
        word: what is shown for the outcome where there is a better one, such as SLOWER.
    """

    gate: str
    outcome: Outcome
    figure: str
    threshold: str
    reason: str = ""
    word: str = ""

    @property
    def shown(self) -> str:
        """The word, or the outcome where there is none."""
        return self.word or self.outcome.value

    def __str__(self) -> str:
        tail = f" ({self.reason})" if self.reason else ""
        return f"{self.shown} {self.gate}: {self.figure}, {self.threshold}{tail}"


def _figure(estimate: Estimate, unit: str) -> str:
    if estimate.unknown:
        return "unknown"
    if not all(map(math.isfinite, (estimate.value, estimate.low, estimate.high))):
        return f"{estimate.value}{unit}"
    if estimate.confidence == 1.0:
        return f"{estimate.value:.3f}{unit}"
    return f"{estimate.value:.3f}{unit} [{estimate.low:.3f}, {estimate.high:.3f}]"


def _judge(
    gate: str, estimate: Estimate, threshold: str, *, low: float, high: float, unit: str
) -> Verdict:
    """Judge by the ends of an excess over the threshold: PASS at or below zero, FAIL above it."""
    reason = ""
    if estimate.unknown:
        outcome, reason = Outcome.INCONCLUSIVE, estimate.unknown
    elif not (math.isfinite(low) and math.isfinite(high)):
        outcome, reason = Outcome.FAIL, "not a finite number"
    elif high <= 0:
        outcome = Outcome.PASS
    elif low > 0:
        outcome = Outcome.FAIL
    else:
        outcome = Outcome.INCONCLUSIVE
        noise = f"{estimate.n} values that scatter by {estimate.scatter:.1%}"
        reason = f"the threshold lies inside the interval of {noise}: too noisy to say"
    figure = _figure(estimate, unit)
    return Verdict(gate=gate, outcome=outcome, figure=figure, threshold=threshold, reason=reason)


def not_gated(gate: str, figure: str, reason: str = "no threshold is set") -> Verdict:
    """Return the verdict on a figure of which nothing was asked."""
    return Verdict(gate=gate, outcome=Outcome.NOT_GATED, figure=figure, threshold=reason)


def at_least(gate: str, estimate: Estimate, minimum: float | None, *, unit: str = "x") -> Verdict:
    """Judge a figure that must not fall below `minimum`."""
    if minimum is None:
        return not_gated(gate, _figure(estimate, unit))
    threshold = f"at least {minimum:g}{unit}"
    low, high = minimum - estimate.high, minimum - estimate.low
    return _judge(gate, estimate, threshold, low=low, high=high, unit=unit)


def at_most(gate: str, estimate: Estimate, maximum: float | None, *, unit: str = "x") -> Verdict:
    """Judge a figure that must not rise above `maximum`."""
    if maximum is None:
        return not_gated(gate, _figure(estimate, unit))
    threshold = f"at most {maximum:g}{unit}"
    low, high = estimate.low - maximum, estimate.high - maximum
    return _judge(gate, estimate, threshold, low=low, high=high, unit=unit)


def equivalent(gate: str, ratio: Estimate, margin: float | None) -> Verdict:
    """Judge a ratio that must lie within a factor ``1 + margin`` of one, on either side.

    Better than the reference fails too: a training that takes every step twice converges
    faster, and is wrong.
    """
    if margin is None:
        return not_gated(gate, _figure(ratio, "x"))
    width = math.log1p(margin)
    logs = [math.log(end) if end > 0 else math.nan for end in (ratio.low, ratio.high)]
    nearest = 0.0 if logs[0] <= 0 <= logs[1] else min(map(abs, logs))
    farthest = max(map(abs, logs)) if all(map(math.isfinite, logs)) else math.nan
    threshold = f"within {margin:.1%} of 1"
    return _judge(gate, ratio, threshold, low=nearest - width, high=farthest - width, unit="x")


def not_worse(
    gate: str, ratio: Estimate, margin: float, *, better: str, runs: int, unit: str = "x"
) -> Verdict:
    """Judge a figure over its baseline's, given as a ratio with a prediction interval.

    Args:
        gate: the gate's name.
        ratio: now over baseline.
        margin: the smallest relative worsening worth reporting.
        better: "lower" or "higher": which way is an improvement.
        runs: how many promoted runs the baseline has.
        unit: printed behind the ratio.
    """
    logs = [math.log(end) if end > 0 else math.nan for end in (ratio.low, ratio.high)]
    low, high = logs if better == "lower" else (-logs[1], -logs[0])
    width = math.log1p(margin)
    threshold = f"at most {margin:.1%} worse than {runs} run{'s' if runs > 1 else ''}"
    verdict = _judge(gate, ratio, threshold, low=low - width, high=high - width, unit=unit)
    if runs >= 3 or verdict.outcome is Outcome.PASS:
        return verdict
    few = "fewer than 3 runs: their spread is assumed; promote more"
    reason = f"{verdict.reason}; {few}" if verdict.reason else few
    return Verdict(
        gate=gate,
        outcome=verdict.outcome,
        figure=verdict.figure,
        threshold=threshold,
        reason=reason,
    )


def missing(gate: str, what: str, remedy: str) -> Verdict:
    """Return the FAIL of a gate whose figure is not there to be judged."""
    return Verdict(
        gate=gate, outcome=Outcome.FAIL, figure=what, threshold="must be there", reason=remedy
    )


def finite(gate: str, offenders: Sequence[str]) -> Verdict:
    """Judge that no loss, parameter or buffer is NaN or infinite; `offenders` names those."""
    shown = ", ".join(offenders[:3]) + (f" and {len(offenders) - 3} more" if offenders[3:] else "")
    return Verdict(
        gate=gate,
        outcome=Outcome.FAIL if offenders else Outcome.PASS,
        figure=f"not finite: {shown}" if offenders else "losses, parameters, buffers finite",
        threshold="must be",
    )


def skipped_steps(gate: str, skipped: int | None, steps: int, max_fraction: float) -> Verdict:
    """Judge how many of `steps` the gradient scaler skipped; None is not known, and not green."""
    threshold = f"at most {max_fraction:.1%} of {steps}"
    if skipped is None:
        return Verdict(
            gate=gate,
            outcome=Outcome.INCONCLUSIVE,
            figure="unknown",
            threshold=threshold,
            reason="the optimizer counts no steps: use one that keeps state['step'], such as Adam",
        )
    # A negative count means that the optimizer took more steps than it was asked to.
    good = 0 <= skipped <= max_fraction * steps
    return Verdict(
        gate=gate,
        outcome=Outcome.PASS if good else Outcome.FAIL,
        figure=f"{skipped} skipped",
        threshold=threshold,
        reason="" if skipped >= 0 else "the optimizer took more steps than it was asked to",
    )


def scale_within(gate: str, scale: float, low: float, high: float) -> Verdict:
    """Judge the gradient scaler's final scale."""
    good = math.isfinite(scale) and low <= scale <= high
    return Verdict(
        gate=gate,
        outcome=Outcome.PASS if good else Outcome.FAIL,
        figure=f"scale {scale:g}",
        threshold=f"within {low:g} and {high:g}",
    )


def throttling(gate: str, sifted: Sifted[Any], reasons: Sequence[str]) -> Verdict:
    """Judge whether enough of what was timed is left where some of it had to be set aside."""
    return Verdict(
        gate=gate,
        outcome=Outcome.PASS if sifted.decides else Outcome.INCONCLUSIVE,
        figure=f"{sifted.set_aside} of {len(sifted.groups)} set aside",
        threshold="at most half",
        reason=f"the device was held back: {', '.join(reasons)}",
    )
