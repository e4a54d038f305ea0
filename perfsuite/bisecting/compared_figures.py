"""The figures of a benchmark by which a search compares two versions, and those without a ratio."""

import math
from statistics import fmean

from perfsuite.against.restart import Restart, SideRecord

WITH_RATIO = "positive"


def figures_of(restart: Restart) -> dict[str, float]:
    """Return how many times A's figures B's are, those that are positive: times, bytes, losses."""
    found = {name: duet.point("B", over="A") for name, duet in restart.duets.items()}
    sides = restart.before, restart.after
    then, now = ({**_metrics(side), **_mean_losses(side)} for side in sides)
    for name in then:  # in their order, by which the first is chosen
        if name in now and name not in found:
            found |= _ratio(name, then[name], now[name])
    return found


def _metrics(side: SideRecord) -> dict[str, float]:
    return {name: metric["value"] for name, metric in side["metrics"].items()}


def _mean_losses(side: SideRecord) -> dict[str, float]:
    """Return the mean loss of all that a benchmark trained, by figure; NaN if one is not finite."""
    pairs = side.get("raw", {}).get("pairs", ())
    return {
        f"{run} mean_loss": fmean(
            math.nan if loss is None else loss for each in pairs for loss in each[run]["losses"]
        )
        for run in (("reference", "candidate") if pairs else ())
    }


def kinds_of_losses(side: SideRecord) -> dict[str, str]:
    """Return what kind of number each mean loss of a benchmark is."""
    return {name: kind_of(loss) for name, loss in _mean_losses(side).items()}


def kind_of(loss: float) -> str:
    """Return what kind of number a loss is, between which there is no ratio."""
    if not math.isfinite(loss):
        return "not finite"
    return WITH_RATIO if loss > 0 else "negative" if loss < 0 else "0"


def _ratio(name: str, before: float | None, after: float | None) -> dict[str, float]:
    if before is None or after is None or not (before > 0 and after > 0):
        return {}
    ratio = after / before
    return {name: ratio} if math.isfinite(ratio) else {}
