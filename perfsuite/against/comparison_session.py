"""`--perf-against`: a session that lets two trees take turns, and says what changed.

It coordinates two servers, one with each tree's code (`perfsuite.against.comparison`), and
imports neither torch nor a benchmark: placeholders have the names of what the servers collected.
"""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from perfsuite.against.comparison import Comparison, ComparisonError, prepare
from perfsuite.against.controllers import SideError
from perfsuite.against.placeholders import Placeholder, placeholder_file
from perfsuite.against.restart import Restart, run_alone, run_restart
from perfsuite.against.verdicts import could_not_run, is_counted, verdicts
from perfsuite.judging.gates import Outcome, Verdict
from perfsuite.judging.stopping import sample
from perfsuite.judging.thresholds import FILE_NAME, Thresholds, ThresholdsError, load_thresholds
from perfsuite.records.causes import reasons
from perfsuite.records.git import GitError, commits_since
from perfsuite.records.schema import Benchmark
from perfsuite.session.collection import refuse_what_switches_gates_off, suites_asked_for
from perfsuite.session.gating_session import GatingSession


def start_comparison(session: pytest.Session) -> None:
    """Start both sides, and register the session that compares them; may raise UsageError."""
    config = session.config
    refuse_what_switches_gates_off(config, (), compare=False)
    if config.getoption("benchmark_skip"):
        raise pytest.UsageError("--benchmark-skip leaves nothing for --perf-against to judge")
    suites = suites_asked_for(config)
    if len(suites) != 1:
        found = ", ".join(sorted(map(str, suites))) or "none"
        raise pytest.UsageError(
            f"--perf-against compares one suite, and the arguments name {found}: give the folder"
            " of the benchmarks, as in `pytest benchmarks --perf-against main`"
        )
    suite = suites.pop()
    # Ended when pytest is, however it ends.
    stack = ExitStack()
    config.add_cleanup(stack.close)
    try:
        comparison = stack.enter_context(prepare(config, suite))
        key = comparison.collected["after"].hardware["key"]
        thresholds = load_thresholds(suite / FILE_NAME, key)
    except (ComparisonError, GitError, OSError, SideError, ThresholdsError) as error:
        raise pytest.UsageError(f"--perf-against: {error}") from None
    plugin = ComparisonSession(config, suite=suite, comparison=comparison, thresholds=thresholds)
    config.pluginmanager.register(plugin, "perfsuite-against")


class ComparisonSession(GatingSession):
    """The session: it runs each benchmark in pairs of processes until the verdict is clear."""

    def __init__(
        self, config: pytest.Config, *, suite: Path, comparison: Comparison, thresholds: Thresholds
    ) -> None:
        super().__init__(config)
        self._suite = suite
        self._comparison = comparison
        self._collected = comparison.collected
        self._thresholds = thresholds
        self._others: list[str] = []  # files that are no part of the suite

    def pytest_pycollect_makemodule(
        self, module_path: Path, parent: pytest.Collector
    ) -> pytest.Collector:
        """Collect what both sides have of a file, without importing it."""
        path = module_path.resolve()
        collect = partial(placeholder_file, parent, module_path, run=self.compare)
        if not path.is_relative_to(self._suite):
            self._others.append(path.name)
            return collect(key="", members={})
        file = path.relative_to(self._suite).as_posix()
        # A benchmark that only the code before has must not go unnoticed.
        items = self._collected["before"].items | self._collected["after"].items
        start = f"{file}::"
        members = {key.removeprefix(start): items[key] for key in items if key.startswith(start)}
        error = None if members else self._collected["after"].why_not(file)
        return collect(key=file, members=members, error=error)

    def key_of(self, item: pytest.Item) -> str | None:
        return item.key if isinstance(item, Placeholder) else None

    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        """Leave out what judges one tree by itself, and say what else is not run."""
        if self._others:
            self.pages.append(f"left out, as no part of the suite: {', '.join(self._others)}")
        alone = [item for item in items if item.get_closest_marker("one_tree")]
        if not alone:
            return
        items[:] = [item for item in items if item not in alone]
        config.hook.pytest_deselected(items=alone)
        names = sorted({item.name.partition("[")[0] for item in alone})
        self.pages.append(f"left out, since they judge one tree by itself: {', '.join(names)}")

    def compare(self, item: Placeholder) -> None:
        """Run restarts until the verdict is clear; fail the item if it is red."""
        restarts: list[Restart] = []
        why: list[str] = []
        profiles: dict[str, Any] = {}
        started_s = time.monotonic()
        try:
            found = self._judge(item, restarts)
        except SideError as error:
            found = (self._could_not_run(item, error),)
        except ComparisonError as error:
            pytest.fail(f"FAIL against: {error}", pytrace=False)
        if restarts:
            if any(verdict.outcome is Outcome.FAIL for verdict in found):
                why, profiles = self._explain(item.key, len(restarts))
            record = {
                **restarts[0].after,
                "verdicts": [asdict(verdict) for verdict in found],
                "reasons": why,
                "against": {"restarts": [each.record() for each in restarts], "profiles": profiles},
            }
            took_s = (time.monotonic() - started_s) / len(restarts)
            duets = [duet for each in restarts for duet in each.duets.values()]
            quads = [quad for duet in duets for quad in duet.quads]
            of_after_s = [block.step_s for quad in quads for block in quad.of("B")]
            self.benchmark.record(item, of_after_s or [took_s], record)
        self.status.clear()
        self.judge(item.key, found, self._thresholds.warn, why)

    def _explain(self, key: str, index: int) -> tuple[list[str], dict[str, Any]]:
        """Return what else differs, a line each, and where the time goes, by a further restart."""
        try:
            both = run_restart(self._comparison, key, index, self.status.show, explain=True)
        except SideError as error:
            return [f"no reasons: {error}"], {}
        ref, sides = self._comparison.ref, self._collected
        before, after = (msgspec.convert(each, Benchmark) for each in (both.before, both.after))
        lines = reasons(
            before,
            after,
            software=(sides["before"].software, sides["after"].software),
            commits=[] if ref is None else commits_since(ref.commit, ref.top),
        )
        return lines, {"before": before.operators, "after": after.operators}

    def _could_not_run(self, item: Placeholder, error: SideError) -> Verdict:
        """Judge a benchmark that a side could not run, beside the other."""
        why: str | None = error.reason
        # What the code after cannot run by itself either is its fault, whichever side failed first.
        if item.key in self._collected["after"].items:
            why = run_alone(self._comparison.after, item.key, self.status.show)
        if why is not None:
            return could_not_run("after", why)
        beside = " beside the code before; alone it can" * (error.side == "after")
        return could_not_run("before", f"{error.side}: {error.reason}{beside}")

    def _judge(self, item: Placeholder, restarts: list[Restart]) -> tuple[Verdict, ...]:
        for side in ("after", "before"):
            collected = self._collected[side]
            if item.key not in collected.items:
                why = collected.why_not(item.key.partition("::")[0])
                raise SideError(side, why or "the benchmark was not collected there")

        def observe(index: int) -> Restart:
            if index == len(restarts):
                restarts.append(run_restart(self._comparison, item.key, index, self.status.show))
                if restarts[index].duets.keys() != restarts[0].duets.keys():
                    raise ComparisonError("what it times differs from one restart to the next")
            return restarts[index]

        def clear(so_far: Sequence[Restart]) -> bool:
            found = verdicts(so_far, self._thresholds)
            return all(verdict.outcome is not Outcome.INCONCLUSIVE for verdict in found)

        started_s = time.monotonic()
        for index in range(2):
            observe(index)
            if is_counted(restarts):
                return verdicts(restarts, self._thresholds)
        budget_s = self._config.getoption("perf_budget") - (time.monotonic() - started_s)
        show = partial(self.status.show, item.name)
        sample(observe, clear=clear, budget_s=budget_s, progress=show)
        return verdicts(restarts, self._thresholds)

    def unevaluated(self) -> list[str]:
        figures = any(verdict.gate.startswith("against ") for _, verdict in self.rows)
        return self.uncompared(compared=figures)

    def header(self) -> list[str]:
        now = self._collected["after"]
        hardware = f"{now.hardware['count']} x {now.hardware['name']} ({now.hardware['key']})"
        return [f"{hardware}, torch {now.software['torch']}", *self._comparison.header()]

    def section(self) -> dict[str, Any]:
        then, now = self._collected["before"], self._collected["after"]
        ref = self._comparison.ref
        return {
            "hardware": now.hardware,
            "software": now.software,
            "against": {
                "ref": ref and ref.name,
                "commit": ref and ref.commit,
                "software": then.software,
                "loaded": {"before": then.loaded, "after": now.loaded},
            },
        }
