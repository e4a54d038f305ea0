"""Gates: pure functions from an estimate and a threshold to a verdict.

FAIL needs the whole interval beyond the threshold, PASS the whole interval on the good side.
In between is INCONCLUSIVE, which is not green. A gate without a threshold is NOT GATED.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from perfsuite.judging.estimates import Estimate
from perfsuite.judging.throttling import Sifted

JUDGEABLE = "a figure that can be judged"
"""What is required where there is none."""


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
    """What one gate says of one figure; each text can be read without the others.

    Attributes:
        gate: the gate's name, as in thresholds.toml.
        outcome: PASS, FAIL, INCONCLUSIVE or NOT GATED.
        figure: completes "found: ", with unit and interval.
        threshold: completes "required: "; empty where nothing is. A NOT GATED verdict of an
            older run has its reason here.
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

    @property
    def required(self) -> str:
        """The threshold, empty where nothing is required."""
        return "" if self.outcome is Outcome.NOT_GATED else self.threshold

    @property
    def explanation(self) -> str:
        """The reason, wherever it is kept."""
        return self.reason or (self.threshold if self.outcome is Outcome.NOT_GATED else "")

    def __str__(self) -> str:
        required = f"; required: {self.required}" if self.required else ""
        explanation = f" ({self.explanation})" if self.explanation else ""
        return f"{self.shown} {self.gate}: {self.figure}{required}{explanation}"


def _figure(estimate: Estimate, unit: str) -> str:
    if estimate.unknown:
        return "unknown"
    if not math.isfinite(estimate.value):
        return str(estimate.value)
    figure = f"{estimate.value:.3f}{unit}"
    if estimate.confidence == 1.0:
        return figure
    return f"{figure} [{estimate.low:.3f}, {estimate.high:.3f}]"


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
    """Return the verdict on a figure of which nothing is required."""
    return Verdict(gate=gate, outcome=Outcome.NOT_GATED, figure=figure, threshold="", reason=reason)


def at_least(gate: str, estimate: Estimate, minimum: float | None, *, unit: str = "x") -> Verdict:
    """Judge a figure that must not fall below `minimum`."""
    if minimum is None:
        return not_gated(gate, _figure(estimate, unit))
    low, high = minimum - estimate.high, minimum - estimate.low
    return _judge(gate, estimate, f"at least {minimum:g}{unit}", low=low, high=high, unit=unit)


def at_most(gate: str, estimate: Estimate, maximum: float | None, *, unit: str = "x") -> Verdict:
    """Judge a figure that must not rise above `maximum`."""
    if maximum is None:
        return not_gated(gate, _figure(estimate, unit))
    low, high = estimate.low - maximum, estimate.high - maximum
    return _judge(gate, estimate, f"at most {maximum:g}{unit}", low=low, high=high, unit=unit)


def _log_ends(ratio: Estimate) -> tuple[float, float]:
    """Return the logarithms of the interval's ends, NaN for one that has none."""
    low, high = (math.log(end) if end > 0 else math.nan for end in (ratio.low, ratio.high))
    return low, high


def equivalent(gate: str, ratio: Estimate, margin: float | None) -> Verdict:
    """Judge a ratio that must lie within a factor ``1 + margin`` of one, on either side.

    Better than the reference fails too: a training that takes every step twice converges
    faster, and is wrong.
    """
    if margin is None:
        return not_gated(gate, _figure(ratio, "x"))
    low, high = _log_ends(ratio)
    nearest = 0.0 if low <= 0 <= high else min(abs(low), abs(high))
    farthest = max(abs(low), abs(high)) if math.isfinite(low + high) else math.nan
    threshold, width = f"within {margin:.1%} of 1x", math.log1p(margin)
    return _judge(gate, ratio, threshold, low=nearest - width, high=farthest - width, unit="x")


def not_worse(
    gate: str, ratio: Estimate, margin: float, *, better: str, runs: int, unit: str = "x"
) -> Verdict:
    """Judge a figure over its baseline's, a ratio with a prediction interval.

    `margin` is the smallest worsening worth reporting, `better` is "lower" or "higher".
    """
    low, high = _log_ends(ratio)
    if better == "higher":
        low, high = -high, -low
    width = math.log1p(margin)
    promoted = "the promoted run" if runs == 1 else f"the {runs} promoted runs"
    threshold = f"at most {margin:.1%} worse than {promoted}"
    verdict = _judge(gate, ratio, threshold, low=low - width, high=high - width, unit=unit)
    if runs >= 3 or verdict.outcome is Outcome.PASS:
        return verdict
    few = "fewer than 3 runs: their spread is assumed; promote more"
    return replace(verdict, reason=f"{verdict.reason}; {few}" if verdict.reason else few)


def missing(gate: str, what: str, remedy: str) -> Verdict:
    """Return the FAIL of a gate whose figure cannot be judged, for the reason `what`."""
    return Verdict(gate=gate, outcome=Outcome.FAIL, figure=what, threshold=JUDGEABLE, reason=remedy)


def finite(gate: str, offenders: Sequence[str]) -> Verdict:
    """Judge that no loss, parameter or buffer is NaN or infinite; `offenders` names those."""
    shown = ", ".join(offenders[:3]) + (f" and {len(offenders) - 3} more" if offenders[3:] else "")
    return Verdict(
        gate=gate,
        outcome=Outcome.FAIL if offenders else Outcome.PASS,
        figure=f"not finite: {shown}" if offenders else "all are finite",
        threshold="finite losses, parameters and buffers",
    )


def equal_on_ranks(gate: str, wrong: str | None, *, weights: int, ranks: int) -> Verdict:
    """Judge that ranks have the same weights; `wrong` says of which that is not so, and where."""
    return Verdict(
        gate=gate,
        outcome=Outcome.PASS if wrong is None else Outcome.FAIL,
        figure=wrong or f"{weights} weights are equal on {ranks} ranks",
        threshold="weights that are equal on all ranks, bit for bit",
        reason=""
        if wrong is None
        else "average gradients over ranks before anything uses them,"
        " and change no weight by what one rank alone has",
    )


def skipped_steps(gate: str, skipped: int | None, steps: int, max_fraction: float) -> Verdict:
    """Judge how many of `steps` the gradient scaler skipped; None is not known, and not green."""
    reason, told = "", f"{skipped} of {steps} steps skipped"
    if skipped is None:
        outcome, told = Outcome.INCONCLUSIVE, f"an unknown number of {steps} steps skipped"
        reason = "the optimizer counts no steps: use one that keeps state['step'], such as Adam"
    elif skipped < 0:
        outcome, told = Outcome.FAIL, f"{steps - skipped} steps taken instead of {steps}"
        reason = "the optimizer took more steps than it was asked to"
    else:
        outcome = Outcome.PASS if skipped <= max_fraction * steps else Outcome.FAIL
    return Verdict(
        gate=gate,
        outcome=outcome,
        figure=told,
        threshold=f"at most {max_fraction:.1%} skipped",
        reason=reason,
    )


def scale_within(gate: str, scale: float, low: float, high: float) -> Verdict:
    """Judge the gradient scaler's final scale."""
    good = math.isfinite(scale) and low <= scale <= high
    return Verdict(
        gate=gate,
        outcome=Outcome.PASS if good else Outcome.FAIL,
        figure=f"a scale of {scale:g}",
        threshold=f"a scale between {low:g} and {high:g}",
    )


def cached(gate: str, hits: int | None, misses: int | None) -> Verdict:
    """Judge that a second process found all that a first one had compiled; None is not known."""
    if hits is None or misses is None:
        return not_gated(gate, "unknown", "this torch does not tell")
    if not hits + misses:
        return not_gated(gate, "nothing was looked for in a cache", "what compiles keeps none")
    return Verdict(
        gate=gate,
        outcome=Outcome.FAIL if misses else Outcome.PASS,
        figure=f"{hits} graphs were found in a cache, {misses} were not",
        threshold="none that a second process compiles anew",
        reason="what a graph depends on differs from one process to the next" * bool(misses),
    )


def throttling(gate: str, sifted: Sifted[Any], reasons: Sequence[str]) -> Verdict:
    """Judge whether enough of what was timed is left where some of it had to be set aside."""
    return Verdict(
        gate=gate,
        outcome=Outcome.PASS if sifted.decides else Outcome.INCONCLUSIVE,
        figure=f"{sifted.set_aside} of {len(sifted.groups)} timings set aside",
        threshold="at most half set aside",
        reason=f"the device was throttled: {', '.join(reasons)}",
    )
