"""What each rule says of one trial: pure functions over recorded times."""

from collections.abc import Mapping, Sequence
from statistics import median

import msgspec
from pytest_benchmark.stats import Stats
from pytest_benchmark.utils import PercentageRegressionCheck
from scipy.stats import mannwhitneyu

from perfsuite.judging.estimates import hodges_lehmann
from perfsuite.judging.gates import Outcome, at_most
from perfsuite.judging.interleaving import pooled_ratio

MARGIN = 0.02
"""The smallest slowdown that perfsuite is asked to report."""
CONFIDENCE = 0.99
FIELDS = ("min", "median", "mean")
PERCENT = 5
ASV_P = 0.002
RULES = ("perfsuite", *(f"{field}:{PERCENT}%" for field in FIELDS), "Mann-Whitney")


class PairTimes(msgspec.Struct, frozen=True, kw_only=True):
    """One pair of processes that took turns: seconds a step, by group of four turns."""

    before_s: list[float]
    after_s: list[float]

    @property
    def ratio(self) -> float:
        """After over before, one observation."""
        return hodges_lehmann(self.after_s, self.before_s)


class DetectionTrial(msgspec.Struct, frozen=True, kw_only=True):
    """One comparison of a step with itself, slowed down or not, as it was measured.

    Attributes:
        slowdown: what the second side was slowed down by, 0.05 for 5 %.
        budget_s: wall seconds for each way of measuring, processes and warm-up included.
        restarts: pairs of processes, as many as perfsuite asked for.
        restarts_s: wall seconds of all of them together.
        before_s: seconds a step of one process that ran alone, for half the budget.
        after_s: the same of another that ran next; both are empty where it was left out.
        started: date and time.
        load_1min: the machine's load when it ended.
    """

    slowdown: float
    budget_s: float
    restarts: list[PairTimes]
    restarts_s: float
    before_s: list[float]
    after_s: list[float]
    started: str
    load_1min: float | None


def perfsuite_says(ratios: Sequence[float]) -> Outcome:
    """Return FAIL where the interval of the restarts' ratio lies beyond the margin."""
    return at_most("step_time", pooled_ratio(ratios, confidence=CONFIDENCE), 1 + MARGIN).outcome


def sequential_rules_say(before: Sequence[float], after: Sequence[float]) -> dict[str, Outcome]:
    """Return what is said of two runs, one after the other, by pytest-benchmark and by asv.

    pytest-benchmark's are its own code, for ``--benchmark-compare-fail=FIELD:5%``. asv calls
    two sets of samples different where a Mann-Whitney test gives p below 0.002.
    """
    then, now = (_summary(times) for times in (before, after))
    said = {
        f"{field}:{PERCENT}%": bool(PercentageRegressionCheck(field, PERCENT).fails(now, then))
        for field in FIELDS
    }
    p = float(mannwhitneyu(after, before).pvalue)
    said["Mann-Whitney"] = p < ASV_P and median(after) > median(before)
    return {rule: Outcome.FAIL if failed else Outcome.PASS for rule, failed in said.items()}


def _summary(times_s: Sequence[float]) -> dict[str, float]:
    stats = Stats()
    for time_s in times_s:
        stats.update(time_s)
    return {field: getattr(stats, field) for field in FIELDS}


def verdicts(trial: DetectionTrial) -> Mapping[str, Outcome]:
    """Return what every rule says of a trial."""
    said = {"perfsuite": perfsuite_says([each.ratio for each in trial.restarts])}
    if trial.before_s:
        said |= sequential_rules_say(trial.before_s, trial.after_s)
    return said
