"""Before and after: pure functions from what two trees measured to a verdict a figure."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

from perfsuite.judging.blocks import Block
from perfsuite.judging.counts import judge
from perfsuite.judging.estimates import Estimate, SampleError, mean_ratio
from perfsuite.judging.gates import Outcome, Verdict, missing
from perfsuite.judging.interleaving import Duet, pooled_ratio
from perfsuite.judging.stalls import mean_s, told, with_mean
from perfsuite.judging.thresholds import Thresholds
from perfsuite.judging.throttling import sift
from perfsuite.records.ledgers import ledger_in
from perfsuite.records.wording import quantity

if TYPE_CHECKING:
    from perfsuite.against.restart import Restart

# What a figure's change is called: the words for less and for more.
_TIME = ("FASTER", "SLOWER")
_BYTES = ("LESS", "MORE")
# Lower is no better here: a step that is taken twice learns faster, and is wrong.
_LOSS = ("DIFFERENT", "DIFFERENT")
_LOWER = ("BETTER", "WORSE")
_HIGHER = ("WORSE", "BETTER")
_BAD = frozenset({"SLOWER", "MORE", "DIFFERENT", "WORSE", "FAIL"})


def could_not_run(side: str, reason: str) -> Verdict:
    """Judge what a side could not run: a fault of the code after; that before may be too old."""
    before = side == "before"
    return Verdict(
        gate="against",
        outcome=Outcome.INCONCLUSIVE if before else Outcome.FAIL,
        figure=f"the code {side} could not run the benchmark",
        threshold="a run on both sides",
        reason=reason,
    )


def is_counted(restarts: Sequence["Restart"]) -> bool:
    """Tell whether a further restart measures nothing new: bytes repeat, losses follow seeds."""
    figures = [
        {name: (metric["value"], metric["unit"]) for name, metric in side["metrics"].items()}
        for each in restarts
        for side in (each.before, each.after)
    ]
    units = {unit for side in figures for _, unit in side.values()}
    if restarts[0].duets or units - {"B"}:
        return False
    repeated = figures == figures[:2] * len(restarts)
    return not units or (len(restarts) > 1 and repeated)


def verdicts(restarts: Sequence["Restart"], asked: Thresholds) -> tuple[Verdict, ...]:
    """Judge times turn by turn, bytes exactly, losses by seed, other figures process by process.

    A restart is one observation.
    """
    first = restarts[0]
    found = [_turns(name, [each.duets[name] for each in restarts], asked) for name in first.duets]
    names = {*first.before["metrics"], *first.after["metrics"]}
    for name in sorted(names - first.duets.keys()):  # whose turns were compared, and not the sums
        measured = [
            (each.before["metrics"].get(name), each.after["metrics"].get(name)) for each in restarts
        ]
        found.append(_metric(name, measured, asked))
    found += _losses(first, asked)
    found += counts_of(first)[0]
    if not found:
        remedy = "use perf.time or perf.metric, or mark the benchmark one_tree"
        found = [missing("against", "nothing was measured on both sides", remedy)]
    return tuple(found)


def _turns(name: str, duets: Sequence[Duet], asked: Thresholds) -> Verdict:
    sifted = sift(duets, lambda duet: not duet.sifted.decides)
    rests_on = f"{len(sifted.kept)} restarts"
    if sifted.set_aside:
        rests_on += f", {sifted.set_aside} more were throttled and set aside"
    sides_s = [
        median([median([block.step_s for block in duet.blocks_of(side)]) for duet in sifted.used])
        for side in "AB"
    ]
    if sifted.decides:
        ratio = _pooled([duet.point("B", over="A") for duet in sifted.kept], asked)
    else:
        ratio = Estimate.no_answer("the device was held back most of the time")
    margin = asked.against.margin
    judged = partial(_judged, name, margin=margin, words=_TIME, unit="s", rests_on=rests_on)
    typical = judged(ratio, sides=sides_s)
    if not sifted.decides:
        return typical
    before, after = ([duet.blocks_of(side) for duet in sifted.kept] for side in "AB")
    of_mean = [mean_s(now) / mean_s(then) for then, now in zip(before, after, strict=True)]
    mean = _pooled(of_mean, asked)
    sides_s = [
        fmean(block.step_s for blocks in side for block in blocks) for side in (before, after)
    ]
    return with_mean(
        typical,
        judged(mean, sides=sides_s),
        beyond=mean.value > 1 + margin,
        stalls=told(_joined(before), _joined(after)),
    )


def stalls_of(restarts: Sequence["Restart"]) -> list[str]:
    """Return a line for each figure whose change is one of stalls, and of no operator."""
    found = []
    for name in restarts[0].duets:
        duets = sift([each.duets[name] for each in restarts], lambda duet: not duet.sifted.decides)
        before, after = ([duet.blocks_of(side) for duet in duets.used] for side in "AB")
        if said := told(_joined(before), _joined(after)):
            found.append(f"{said}; no operator is named")
    return found


def _joined(blocks: Sequence[Sequence[Block]]) -> list[Block]:
    return [block for each in blocks for block in each]


def _metric(name: str, measured: Sequence[tuple[Any, Any]], asked: Thresholds) -> Verdict:
    for side, of_side in (("before", 0), ("after", 1)):
        if any(pair[of_side] is None for pair in measured):
            remedy = "both sides must measure the same for it to be compared"
            return missing(f"against {name}", f"{side} did not measure it", remedy)
    before, after = measured[0]
    unit, better = before["unit"], before["better"]
    if unit != after["unit"] or better != after["better"]:
        return missing(f"against {name}", "its unit or direction changed", "compare by hand")
    pairs = [(each[0]["value"], each[1]["value"]) for each in measured]
    words = _HIGHER if better == "higher" else {"s": _TIME, "B": _BYTES}.get(unit, _LOWER)
    if counted := unit == "B" and len(set(pairs)) == 1:
        ratio = Estimate.exact(pairs[0][1] / pairs[0][0])
    else:
        ratio = _pooled([now / then for then, now in pairs], asked)
    return _judged(
        name,
        ratio,
        margin=asked.against.margin,
        words=words,
        sides=[median(side) for side in zip(*pairs, strict=True)],
        unit=unit,
        rests_on="counted" if counted else f"{len(measured)} restarts",
    )


def _losses(restart: "Restart", asked: Thresholds) -> list[Verdict]:
    """Compare the mean losses of trainings from the same seeds, by two one-sided tests."""
    sides = [
        {pair["seed"]: pair for pair in side.get("raw", {}).get("pairs", ())}
        for side in (restart.before, restart.after)
    ]
    seeds = sorted(sides[0])
    if sides[0].keys() != sides[1].keys():
        remedy = "both sides must train from the same seeds for it to be compared"
        return [missing("against mean_loss", "trained from other seeds", remedy)]
    found = []
    for run in ("reference", "candidate") if seeds else ():
        then, now = ([_mean(side[seed][run]["losses"]) for seed in seeds] for side in sides)
        try:
            ratio = mean_ratio(now, then, confidence=1 - 2 * asked.convergence.alpha)
        except SampleError as error:
            finite = all(map(math.isfinite, (*then, *now)))  # null in the JSON if it was not
            ratio = Estimate.no_answer(str(error)) if finite else Estimate.exact(math.nan)
        verdict = _judged(
            f"{run} mean_loss",
            ratio,
            margin=asked.convergence.margin,
            words=_LOSS,
            sides=[fmean(then), fmean(now)],
            unit="",
            rests_on=f"{len(seeds)} seeds",
        )
        found.append(verdict)
    return found


def counts_of(restart: "Restart") -> tuple[list[Verdict], list[str]]:
    """Return the verdict on what a step is counted to do, and what changed, a line each."""
    before, after = (ledger_in(side.get("raw", {})) for side in (restart.before, restart.after))
    if before is None and after is None:
        return [], []
    if before is None or after is None:
        remedy = "both sides must count for it to be compared"
        side = "before" if before is None else "after"
        return [missing("against ledger", f"nothing was counted {side}", remedy)], []
    verdict, lines = judge(before, after, as_in="as before")
    return [replace(verdict, gate=f"against {verdict.gate}")], lines


def _mean(losses: Sequence[float | None]) -> float:
    return fmean(math.nan if loss is None else loss for loss in losses)


def _pooled(ratios: Sequence[float], asked: Thresholds) -> Estimate:
    try:
        return pooled_ratio(ratios, confidence=asked.against.confidence)
    except SampleError as error:
        return Estimate.no_answer(str(error))


def _judged(
    name: str,
    ratio: Estimate,
    *,
    margin: float,
    words: tuple[str, str],
    sides: Sequence[float],
    unit: str,
    rests_on: str,
) -> Verdict:
    """Judge a ratio of after to before against the smallest change worth reporting."""
    low, high = (math.log(end) if end > 0 else -math.inf for end in (ratio.low, ratio.high))
    width = math.log1p(margin)
    changed = low > width or high < -width
    word = words[low > width] if changed else "INCONCLUSIVE"
    if -width <= low and high <= width:
        word = "SAME"
    reason = rests_on
    if ratio.unknown:
        word, reason = "INCONCLUSIVE", f"{reason}: {ratio.unknown}"
    elif not math.isfinite(ratio.value):
        word, reason = "FAIL", f"{reason}: not a finite number"
    elif word == "INCONCLUSIVE":
        noise = f"scatter by {ratio.scatter:.1%}"
        reason = f"{reason} that {noise}: too noisy to say; give it more --perf-budget"
    elif ratio.confidence < 1:
        # An estimate half an interval beyond the margin is told; so far from it are nearly all
        # estimates of a change that is an interval beyond.
        visible = math.expm1(width + (high - low))
        reason = f"{reason}; a change of {visible:.1%} would have been seen"
    outcome = Outcome.FAIL if word in _BAD else Outcome.PASS
    if word == "INCONCLUSIVE":
        outcome = Outcome.INCONCLUSIVE
    interval = f" [{ratio.low:.3f}, {ratio.high:.3f}]" if 0 < ratio.confidence < 1 else ""
    change = "unknown" if ratio.unknown else f"{ratio.value:.3f}x{interval}"
    return Verdict(
        gate=f"against {name}",
        outcome=outcome,
        figure=f"{change} ({' -> '.join(quantity(side, unit) for side in sides)})",
        threshold=f"the same within {margin:.1%}",
        reason=reason,
        word="" if word == outcome.value else word,
    )
