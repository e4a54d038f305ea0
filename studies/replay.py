"""Thousands of trials in seconds: recorded restarts drawn anew, slowed down by arithmetic."""

import random
from collections.abc import Sequence

from study_verdicts import DetectionTrial, perfsuite_says, sequential_rules_say

from perfsuite.judging.gates import Outcome
from perfsuite.judging.stopping import sample

CHUNK = 6
"""Restarts that are drawn together, so that neighbours resemble each other as they did."""


def replay(
    trials: Sequence[DetectionTrial], *, slowdown: float, budget_s: float, n: int, seed: int
) -> list[Outcome]:
    """Return what perfsuite says of `n` trials put together from restarts of that budget.

    A moving-block bootstrap (Kuensch, Ann. Statist. 17, 1989) over the restarts of all trials,
    each divided by the slowdown that it was measured with and multiplied by `slowdown`. In
    half of the trials the sides change places, which undoes no more than a name: each side
    started first, and went first, equally often. A restart costs what one cost on average.
    """
    trials = [trial for trial in trials if trial.budget_s == budget_s]
    recorded = [each.ratio / (1 + trial.slowdown) for trial in trials for each in trial.restarts]
    cost_s = sum(trial.restarts_s for trial in trials) / len(recorded)
    draw = random.Random(seed)
    said = []
    for _ in range(n):
        side = draw.choice((1, -1))
        now_s = 0.0
        chunk: list[float] = []

        def observe(_: int, side: int = side) -> float:
            nonlocal now_s, chunk
            now_s += cost_s
            if not chunk:
                start = draw.randrange(len(recorded) - CHUNK + 1)
                chunk = recorded[start : start + CHUNK]
            return float(chunk.pop() ** side) * (1 + slowdown)

        def clear(ratios: Sequence[float]) -> bool:
            return perfsuite_says(ratios) is not Outcome.INCONCLUSIVE

        said.append(
            perfsuite_says(
                sample(observe, clear=clear, budget_s=budget_s, now=lambda: now_s)  # noqa: B023
            )
        )
    return said


def replay_sequential(
    trials: Sequence[DetectionTrial], *, slowdown: float, budget_s: float
) -> dict[str, list[Outcome]]:
    """Return what the other rules say of the two runs of each trial, slowed down by arithmetic.

    Each pair is judged once: processes cannot be put together anew.
    """
    said: dict[str, list[Outcome]] = {}
    for trial in trials:
        if trial.budget_s == budget_s and trial.before_s:
            factor = (1 + slowdown) / (1 + trial.slowdown)
            slowed = [time_s * factor for time_s in trial.after_s]
            for rule, outcome in sequential_rules_say(trial.before_s, slowed).items():
                said.setdefault(rule, []).append(outcome)
    return said
