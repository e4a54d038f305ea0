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

from perfsuite.against.comparison import Comparison, ComparisonError, ComparisonRequest, prepare
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
from perfsuite.session.collection import arguments, refuse_what_switches_gates_off, suites_asked_for
from perfsuite.session.gating_session import GatingSession


def start_comparison(session: pytest.Session) -> None:
    """Start both sides, and register the session that compares them.

    Raises:
        UsageError: the options do not go together, or the two sides cannot be compared.
    """
    config = session.config
    refuse_what_switches_gates_off(config, (), compare=False)
    if config.getoption("benchmark_skip"):
        raise pytest.UsageError("--benchmark-skip leaves nothing for --perf-against to judge")
    suites = suites_asked_for(config)
    if len(suites) != 1:
        found = ", ".join(sorted(map(str, suites))) or f"no folder with a {FILE_NAME}"
        raise pytest.UsageError(f"--perf-against compares one suite; the arguments name {found}")
    suite = suites.pop()
    folder = config.invocation_params.dir.resolve()
    python = config.getoption("perf_against_python")
    request = ComparisonRequest(
        ref=config.getoption("perf_against"),
        python=None if python is None else str(folder / Path(python).expanduser()),
        folder=folder,
        rootdir=config.rootpath.resolve(),
        suite=suite,
        paths=sorted({place for place, _ in arguments(config)}),
        options=_options_of_the_sides(config),
    )
    # Ended when pytest is, however it ends.
    stack = ExitStack()
    config.add_cleanup(stack.close)
    try:
        comparison = stack.enter_context(prepare(request))
        key = comparison.collected["after"].hardware["key"]
        thresholds = load_thresholds(suite / FILE_NAME, key)
    except (ComparisonError, GitError, OSError, SideError, ThresholdsError) as error:
        raise pytest.UsageError(f"--perf-against: {error}") from None
    plugin = ComparisonSession(config, suite=suite, comparison=comparison, thresholds=thresholds)
    config.pluginmanager.register(plugin, "perfsuite-against")


def _options_of_the_sides(config: pytest.Config) -> list[str]:
    """Return the options under which the sides' own pytest collects, and nothing else."""
    option = config.option
    workload = option.perf_workload
    return [
        "--override-ini=addopts=",  # of this session, and not of theirs
        *(f"--override-ini={each}" for each in option.override_ini or ()),
        *(f"-p{plugin}" for plugin in option.plugins or ()),
        "-pno:cacheprovider",
        "--capture=no",
        "--continue-on-collection-errors",
        f"--import-mode={option.importmode}",
        f"--perf-device={option.perf_device}",
        f"--perf-data={option.perf_data}",
        f"--perf-budget={option.perf_budget}",
        *([f"--perf-workload={workload}"] if workload is not None else ()),
    ]


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
        members = {
            name: markers
            for side in self._collected.values()
            for key, markers in side.items.items()
            for place, _, name in (key.partition("::"),)
            if place == file
        }
        error = None if members else self._collected["after"].why_not(file)
        return collect(key=file, members=members, error=error)

    def key_of(self, item: pytest.Item) -> str | None:
        """Return the key of the benchmark that an item stands for."""
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
            took_s = time.monotonic() - started_s
            against = {"restarts": [each.record() for each in restarts], "profiles": profiles}
            record = {
                **restarts[0].after,
                "verdicts": [asdict(verdict) for verdict in found],
                "reasons": why,
                "against": against,
            }
            times_s = _times_s(restarts) or [took_s / len(restarts)]
            self.benchmark.record(item, times_s, record)
        self.status.clear()
        self.judge(item.key, found, self._thresholds.warn, why)

    def _explain(self, key: str, index: int) -> tuple[list[str], dict[str, Any]]:
        """Return what differs between the sides besides their figures, by a further restart.

        Returns:
            A line each, and where the time goes on each side.
        """
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
        """Return the verdict on a benchmark that a side could not run, beside the other.

        What the code after cannot run by itself either is its fault, whichever side failed first.
        """
        why: str | None = error.reason
        if item.key in self._collected["after"].items:
            why = run_alone(self._comparison.after, item.key, self.status.show)
        if why is not None:
            return could_not_run("after", why)
        beside = " beside the code before; alone it can" * (error.side == "after")
        return could_not_run("before", f"{error.side}: {error.reason}{beside}")

    def _judge(self, item: Placeholder, restarts: list[Restart]) -> tuple[Verdict, ...]:
        file = item.key.partition("::")[0]
        for side in ("after", "before"):
            collected = self._collected[side]
            if item.key not in collected.items:
                why = collected.why_not(file) or "the benchmark was not collected there"
                raise SideError(side, why)
        show = partial(self.status.show, item.name)

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
        sample(observe, clear=clear, budget_s=budget_s, progress=show)
        return verdicts(restarts, self._thresholds)

    def unevaluated(self) -> list[str]:
        """Return what keeps a session without a failure from being green."""
        figures = any(verdict.gate.startswith("against ") for _, verdict in self.rows)
        return self.uncompared(compared=figures)

    def header(self) -> list[str]:
        """Return what is compared."""
        now = self._collected["after"]
        hardware = f"{now.hardware['count']} x {now.hardware['name']} ({now.hardware['key']})"
        return [f"{hardware}, torch {now.software['torch']}", *self._comparison.header()]

    def section(self) -> dict[str, Any]:
        """Return hardware and software, and what was compared with what."""
        then, now = self._collected["before"], self._collected["after"]
        ref = self._comparison.ref
        return {
            "hardware": now.hardware,
            "software": now.software,
            "against": {
                "ref": None if ref is None else ref.name,
                "commit": None if ref is None else ref.commit,
                "software": then.software,
                "loaded": {"before": then.loaded, "after": now.loaded},
            },
        }


def _times_s(restarts: Sequence[Restart]) -> list[float]:
    """Return the seconds a step of every block of the side after."""
    return [
        block.step_s
        for each in restarts
        for duet in each.duets.values()
        for one in duet.quads
        for block in one.of("B")
    ]
