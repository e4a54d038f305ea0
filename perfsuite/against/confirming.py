"""Confirmation: what the comparison with a baseline suspects is measured again, beside its code."""

import dataclasses
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import pytest

from perfsuite.against.comparison import Comparison, ComparisonError, prepare
from perfsuite.against.controllers import SideError
from perfsuite.against.old_environment import (
    EnvironmentUnavailableError,
    changed_packages,
    python_with,
)
from perfsuite.against.pairs import Paired, Pairs
from perfsuite.against.restart import Restart
from perfsuite.against.verdicts import verdicts
from perfsuite.devices.torchrun import seat
from perfsuite.judging.confirmation import ENVIRONMENT, metric_of, settle, suspects, unconfirmed
from perfsuite.judging.gates import JUDGEABLE, Outcome, Verdict
from perfsuite.judging.stopping import Pot
from perfsuite.judging.thresholds import Thresholds
from perfsuite.records.baseline import Baseline, compare
from perfsuite.records.git import HASH, GitError, why_shallow
from perfsuite.records.schema import Benchmark, Confirmation
from perfsuite.session.terminal import StatusLine

_UNAVAILABLE = (ComparisonError, GitError, OSError, SideError)
_PROMOTE = "promote runs of a commit that has the benchmark, and can run it here"
_BUDGETS = 4
"""How many budgets a first look may take; figures that take longer stay suspected."""


@dataclasses.dataclass(kw_only=True)
class Confirmer:
    """Confirms what a screen suspects: the promoted commit and the working tree, in turns."""

    config: pytest.Config
    suite: Path
    baseline: Baseline
    software: dict[str, Any]  # of the session
    thresholds: Thresholds
    status: StatusLine
    pot: Pot
    took_s: float = 0.0  # for all that was confirmed so far
    _no_old_python: str = ""  # why the promoted commit runs with today's interpreter all the same
    _comparison: Comparison | str | None = None  # or why there can be none
    _moved: bool = False  # whether the environment made a figure worse

    def confirm(
        self, now: Benchmark, screened: Sequence[Verdict], changes: Sequence[str]
    ) -> tuple[list[Verdict], Confirmation | None, list[str]]:
        """Return the verdicts that count, how they came about, and why they are red if they are.

        `screened` is what the baseline says of a benchmark, `changes` what else differs from when
        it was promoted.
        """
        names = suspects(screened)
        if not names:
            return list(screened), None, []
        suspected = [each for each in screened if metric_of(each) in names]
        comparison = self._ready()
        try:
            if isinstance(comparison, str):
                raise ComparisonError(comparison)
            paired = self._pairs(comparison, now.key, names)
            found = {each.gate.removeprefix("against "): each for each in paired.verdicts}
            for verdict in paired.verdicts:
                if verdict.gate == "against" or verdict.threshold == JUDGEABLE:
                    before = verdict.outcome is Outcome.INCONCLUSIVE  # could not run it
                    remedy = f"; {_PROMOTE}" * before
                    raise ComparisonError(f"{verdict.figure}: {verdict.reason}{remedy}")
        except ComparisonError as error:
            kept = Confirmation(suspected=suspected, why_not=str(error))
            return unconfirmed(screened, names, f"not confirmed: {error}"), kept, []
        self.took_s += paired.took_s
        settled = settle(
            screened,
            found,
            cost=f"{paired.took_s:.0f} s",
            today=self._today(comparison, now, names, paired.restarts),
            environment=self.thresholds.compare.environment,
            changes=changes,
            beside=comparison.software_changes() if comparison.python is not None else (),
        )
        kept = Confirmation(suspected=suspected, took_s=paired.took_s, turns=paired.record())
        self._moved |= any(each.word == ENVIRONMENT for each in settled)
        return settled, kept, paired.reasons

    def _today(
        self,
        comparison: Comparison,
        now: Benchmark,
        names: Sequence[str],
        restarts: Sequence[Restart],
    ) -> dict[str, Verdict]:
        """Return what the baseline says of what the pairs measured of the promoted code.

        Nothing where the pairs measure otherwise, as on a CPU, where each has one thread.
        """
        # A session of ranks knows besides how they talk.
        theirs = comparison.collected["after"].software
        if any(self.software.get(name) != version for name, version in theirs.items()):
            return {}
        metrics = {
            name: msgspec.structs.replace(
                now.metrics[name],
                value=median(each.before["metrics"][name]["value"] for each in restarts),
            )
            for name in names
        }
        before = msgspec.structs.replace(now, metrics=metrics)
        found = compare(self.baseline, before, self.thresholds.compare)
        return {metric_of(each): each for each in found if metric_of(each) in names}

    def _pairs(self, comparison: Comparison, key: str, names: Sequence[str]) -> Paired:
        """Let both sides take turns, and judge by the margin of the comparison with a baseline."""
        before = comparison.collected["before"]
        if key not in before.items:
            why = before.why_not(key.partition("::")[0]) or "it has no such benchmark"
            raise ComparisonError(f"the promoted commit: {why}; {_PROMOTE}")
        limits = msgspec.structs.replace(
            self.thresholds.against, margin=self.thresholds.compare.margin
        )
        asked = msgspec.structs.replace(self.thresholds, against=limits)
        gates = {f"against {name}" for name in names}

        def judge(restarts: Sequence[Restart]) -> tuple[Verdict, ...]:
            found = tuple(each for each in verdicts(restarts, asked) if each.gate in gates)
            if len(found) < len(gates):
                raise ComparisonError("two trees do not measure it in pairs of processes")
            return found

        most_s = _BUDGETS * self.config.getoption("perf_budget")
        pairs = Pairs(comparison, pot=self.pot, show=self.status.show)
        return pairs.run(key, judge, config=self.baseline.config(key), most_s=most_s)

    def _ready(self) -> Comparison | str:
        """Start both sides if that was not done, or return why they cannot be."""
        if self._comparison is None:
            self._comparison = self._why_not() or self._started()
        return self._comparison

    def _why_not(self) -> str | None:
        commit = self.baseline.runs[-1].commit
        if not HASH.fullmatch(commit):
            return f"{commit!r} is no commit, so that it cannot be measured again"
        if any(run.dirty for run in self.baseline.runs):
            return (
                f"what was promoted is {commit[:12]} with uncommitted changes, so that it"
                " cannot be measured again; commit them, and promote runs of that commit"
            )
        if (nodes := seat().nodes) > 1:
            return f"it takes the ranks of one machine, and there are {nodes}"
        return None

    def _started(self) -> Comparison | str:
        stack, commit = ExitStack(), self.baseline.runs[-1].commit
        self.config.add_cleanup(stack.close)
        self.status.show(f"starting {commit[:12]} beside the working tree", 0, 1)
        try:
            return stack.enter_context(
                prepare(self.config, self.suite, ref=commit, python=self._python(), own_suites=True)
            )
        except _UNAVAILABLE as error:
            return f"{error}{self._remedy(error)}"

    def _python(self) -> str | None:
        """Return the interpreter for the promoted commit, None if it is this one."""
        wanted: str | None = self.config.getoption("perf_confirm_python")
        if wanted != "auto":
            return wanted
        try:
            changed = changed_packages(self.baseline.runs[-1].software, self.software)
            self.status.show(f"installing {', '.join(changed)}", 0, 1)
            return str(python_with(changed)) if changed else None
        except (EnvironmentUnavailableError, OSError) as error:
            self._no_old_python = f"the promoted commit ran with today's interpreter: {error}"
            return None

    def _remedy(self, error: Exception) -> str:
        if not isinstance(error, GitError) or why_shallow(self.suite):  # which it tells by itself
            return ""
        return "; promote runs of a commit that this repository has"

    def summary(self) -> list[str]:
        """Return what confirming has cost, in a line, if anything was suspected."""
        if self._comparison is None:
            return []
        if isinstance(self._comparison, str):
            return [f"what was suspected could not be confirmed: {self._comparison}"]
        return [
            f"confirming what was suspected took {self.took_s:.0f} s",
            *([self._no_old_python] if self._no_old_python else ()),
            *self._comparison.header(),
            *(self._which_package() if self._moved and self._comparison.python is None else ()),
        ]

    def _which_package(self) -> list[str]:
        try:
            changed = changed_packages(self.baseline.runs[-1].software, self.software)
        except EnvironmentUnavailableError:  # another Python is no package
            return []
        again = f"measures with {', '.join(changed)} again, and tells how to search on"
        return [f"which package: --perf-confirm-python auto {again}"] * bool(changed)
