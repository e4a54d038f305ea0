"""Benchmarks in pairs of processes: restarts of both sides, until the verdict is clear."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec

from perfsuite.against.comparison import Comparison, ComparisonError
from perfsuite.against.controllers import SideError
from perfsuite.against.restart import Restart, config_of, run_alike, run_alone, run_restart
from perfsuite.against.verdicts import could_not_run, counts_of, is_counted, stalls_of
from perfsuite.judging.confirmation import red_by_code, searchable
from perfsuite.judging.gates import Outcome, Verdict
from perfsuite.judging.stopping import LOOKS, Pot, Show, sample
from perfsuite.records.causes import reasons
from perfsuite.records.git import commits_since
from perfsuite.records.schema import Benchmark

JudgeRestarts = Callable[[Sequence[Restart]], tuple[Verdict, ...]]


@dataclass(slots=True)
class Paired:
    """What came of a benchmark in pairs of processes."""

    verdicts: tuple[Verdict, ...] = ()
    restarts: list[Restart] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)  # what accounts for a change, a line each
    profiles: dict[str, Any] = field(default_factory=dict)  # of both sides, where one was red
    took_s: float = 0.0

    def record(self) -> dict[str, Any]:
        """Return all of it for the run's JSON."""
        return {"restarts": [each.record() for each in self.restarts], "profiles": self.profiles}


class Pairs:
    """Runs benchmarks of two sides that are ready, one after the other."""

    def __init__(self, comparison: Comparison, *, pot: Pot, show: Show) -> None:
        self._comparison = comparison
        self._collected = comparison.collected
        self._pot = pot
        self._show = show

    def run(
        self,
        key: str,
        judge: JudgeRestarts,
        *,
        config: Mapping[str, Any] | None = None,
        most_s: float | None = None,
    ) -> Paired:
        """Run a benchmark until no verdict of `judge` is INCONCLUSIVE, or the budget is spent.

        What a process would look for by itself, such as a batch that keeps the device busy, is as
        in `config`; without one, as the code before finds it first.

        Raises ComparisonError where both sides cannot be compared, or where the first look would
        take longer than `most_s`.
        """
        paired = Paired()
        started_s = time.monotonic()
        try:
            paired.verdicts = self._sample(key, judge, paired.restarts, config, most_s)
        except SideError as error:
            paired.verdicts = (self._could_not_run(key, error),)
        red = red_by_code(paired.verdicts)
        if paired.restarts and red:
            _, paired.reasons = counts_of(paired.restarts[0])
            if not paired.reasons:  # which the counts are by themselves
                paired.reasons, paired.profiles = self._explain(key, paired.restarts)
            paired.reasons += self._comparison.which(key, searchable(red))
        paired.took_s = time.monotonic() - started_s
        return paired

    def _sample(
        self,
        key: str,
        judge: JudgeRestarts,
        restarts: list[Restart],
        config: Mapping[str, Any] | None,
        most_s: float | None,
    ) -> tuple[Verdict, ...]:
        for side in ("after", "before"):
            collected = self._collected[side]
            if key not in collected.items:
                why = collected.why_not(key.partition("::")[0])
                raise SideError(side, why or "the benchmark was not collected there")

        def observe(index: int) -> Restart:
            if index == len(restarts):
                kept_to = config_of(restarts[0]) if restarts else config
                restarts.append(run_alike(self._comparison, key, index, self._show, config=kept_to))
                if restarts[index].duets.keys() != restarts[0].duets.keys():
                    raise ComparisonError("what it times differs from one restart to the next")
            return restarts[index]

        def clear(so_far: Sequence[Restart]) -> bool:
            return all(verdict.outcome is not Outcome.INCONCLUSIVE for verdict in judge(so_far))

        started_s = time.monotonic()
        for index in range(2):
            observe(index)
            if is_counted(restarts):
                return judge(restarts)
        spent_s = time.monotonic() - started_s
        if most_s is not None and LOOKS[0] / 2 * spent_s > most_s:
            raise ComparisonError(
                f"a pair of processes takes {spent_s / 2:.0f} s, and it takes {LOOKS[0]} pairs at"
                " least: more than there is time for; raise --perf-budget"
            )
        show = partial(self._show, key.rpartition("::")[2])
        sample(observe, clear=clear, budget_s=self._pot.budget_s() - spent_s, progress=show)
        self._pot.took(time.monotonic() - started_s)
        return judge(restarts)

    def _explain(self, key: str, restarts: Sequence[Restart]) -> tuple[list[str], dict[str, Any]]:
        """Return what else differs, a line each, and where the time goes, by a further restart."""
        try:
            both = run_restart(
                self._comparison,
                key,
                len(restarts),
                self._show,
                config=config_of(restarts[0]),
                explain=True,
            )
        except SideError as error:
            return [f"no reasons: {error}"], {}
        ref, sides = self._comparison.ref, self._collected
        before, after = (msgspec.convert(each, Benchmark) for each in (both.before, both.after))
        lines = reasons(
            before,
            after,
            software=(sides["before"].software, sides["after"].software),
            commits=[] if ref is None else commits_since(ref.commit, ref.top),
            stalls=stalls_of(restarts),
        )
        return lines, {"before": before.operators, "after": after.operators}

    def _could_not_run(self, key: str, error: SideError) -> Verdict:
        """Judge a benchmark that a side could not run, beside the other."""
        why: str | None = error.reason
        # What the code after cannot run by itself either is its fault, whichever side failed first.
        if key in self._collected["after"].items:
            why = run_alone(self._comparison.after, key, self._show)
        if why is not None:
            return could_not_run("after", why)
        beside = " beside the code before; alone it can" * (error.side == "after")
        return could_not_run("before", f"{error.side}: {error.reason}{beside}")
