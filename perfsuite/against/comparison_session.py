"""`--perf-against`: a session that lets two trees take turns, and says what changed.

It coordinates two servers, one with each tree's code (`perfsuite.against.comparison`), and
imports neither torch nor a benchmark: placeholders have the names of what the servers collected.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from perfsuite.against.comparison import Comparison, ComparisonError, prepare
from perfsuite.against.controllers import SideError
from perfsuite.against.pairs import Pairs
from perfsuite.against.placeholders import Placeholder, placeholder_file, placeholders_of
from perfsuite.against.restart import Restart
from perfsuite.against.verdicts import verdicts
from perfsuite.devices.torchrun import RankError, seat
from perfsuite.judging.gates import Verdict
from perfsuite.judging.stopping import Pot
from perfsuite.judging.thresholds import FILE_NAME, Thresholds, ThresholdsError, load_thresholds
from perfsuite.records.git import GitError
from perfsuite.session.collection import refuse_what_switches_gates_off, suites_asked_for
from perfsuite.session.gating_session import GatingSession, told_machine


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
        if (started := seat().ranks) > 1:
            raise RankError(
                "each side starts its ranks by itself: start pytest without torchrun, with"
                f" --perf-ranks {started}"
            )
        comparison = stack.enter_context(
            prepare(
                config,
                suite,
                ref=config.getoption("perf_against"),
                python=config.getoption("perf_against_python"),
            )
        )
        key = comparison.collected["after"].hardware["key"]
        thresholds = load_thresholds(suite / FILE_NAME, key)
    except (
        *(ComparisonError, GitError, OSError),
        *(RankError, SideError, ThresholdsError),
    ) as error:
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
        pot = Pot(config.getoption("perf_budget"))
        self._pairs = Pairs(comparison, pot=pot, show=self.status.show)
        self._others: list[str] = []  # files that are no part of the suite

    def pytest_pycollect_makemodule(
        self, module_path: Path, parent: pytest.Collector
    ) -> pytest.Collector:
        """Collect what both sides have of a file, without importing it."""
        found = placeholders_of(
            parent,
            module_path,
            suite=self._suite,
            # A benchmark that only the code before has must not go unnoticed.
            items=self._collected["before"].items | self._collected["after"].items,
            why_not=self._collected["after"].why_not,
            run=self.compare,
        )
        if found is not None:
            return found
        self._others.append(module_path.name)
        return placeholder_file(parent, module_path, key="", members={}, run=self.compare)

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
        try:
            paired = self._pairs.run(item.key, self._judge)
        except ComparisonError as error:
            pytest.fail(f"FAIL against: {error}", pytrace=False)
        if restarts := paired.restarts:
            record = {
                **restarts[0].after,
                "verdicts": [asdict(verdict) for verdict in paired.verdicts],
                "reasons": paired.reasons,
                "against": paired.record(),
            }
            duets = [duet for each in restarts for duet in each.duets.values()]
            quads = [quad for duet in duets for quad in duet.quads]
            of_after_s = [block.step_s for quad in quads for block in quad.of("B")]
            self.benchmark.record(item, of_after_s or [paired.took_s / len(restarts)], record)
        self.status.clear()
        self.judge(item.key, paired.verdicts, self._thresholds.warn, paired.reasons)

    def _judge(self, restarts: Sequence[Restart]) -> tuple[Verdict, ...]:
        return verdicts(restarts, self._thresholds)

    def unevaluated(self) -> list[str]:
        figures = any(verdict.gate.startswith("against ") for _, verdict in self.rows)
        return self.uncompared(compared=figures)

    def header(self) -> list[str]:
        now = self._collected["after"]
        hardware = f"{now.hardware['count']} x {now.hardware['name']} ({now.hardware['key']})"
        lines = told_machine(hardware, now.hardware["key"], now.software)
        return [*lines, *self._comparison.header()]

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
                "loaded": {
                    side: {where: names for where, names in has.loaded.items() if where != "files"}
                    for side, has in self._collected.items()
                },
            },
        }
