"""A pytest session with benchmarks of perfsuite: gates, comparison, saving and the table.

Registered as a plugin once such benchmarks have been collected. Whatever would leave a gate
unevaluated is refused here, before anything is measured.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from perfsuite.baseline import Baseline, BaselineError, compare, load_baseline
from perfsuite.bench import Bench
from perfsuite.collected import (
    Removed,
    refuse_what_switches_gates_off,
    removed_benchmarks,
)
from perfsuite.data import DataError, Digits
from perfsuite.device import DeviceError
from perfsuite.gates import Outcome, Verdict
from perfsuite.machine import Machine, machine
from perfsuite.progress import StatusLine
from perfsuite.replay import Replay
from perfsuite.runs import SCHEMA
from perfsuite.saving import refuse_unwritable, save_run
from perfsuite.stats import SampleError, median_s
from perfsuite.summary import write_summary
from perfsuite.thresholds import FILE_NAME, Thresholds, ThresholdsError, load_thresholds
from perfsuite.workload import Workload

__all__ = ["PerfSession", "machine_of", "start_session"]

_MACHINE = pytest.StashKey[Machine]()
_BENCH = pytest.StashKey[Bench]()
# What these do must not be done to an item that says that a benchmark is gone.
_MARKERS_THAT_ACT = {
    "benchmark",
    "filterwarnings",
    "parametrize",
    "skip",
    "skipif",
    "usefixtures",
    "xfail",
}


def machine_of(config: pytest.Config) -> Machine:
    """Return what the session runs on, found out once."""
    if _MACHINE not in config.stash:
        wanted, workload = config.getoption("perf_device"), config.getoption("perf_workload")
        try:
            config.stash[_MACHINE] = machine(wanted, workload)
        except DeviceError as error:
            raise pytest.UsageError(str(error)) from None
    return config.stash[_MACHINE]


def start_session(
    session: pytest.Session,
    suite: Path,
    items: list[pytest.Item],
    ours: Sequence[pytest.Item],
    compare: Any,
) -> "PerfSession":
    """Check the session's options, load thresholds and baseline, and register the session.

    Args:
        session: pytest's.
        suite: the folder of the suite.
        items: all that was collected; benchmarks that the baseline has and the suite no
            longer has are added, so that they fail.
        ours: those that use the fixture `perf`.
        compare: the value of --benchmark-compare; False without it, True for the bare flag.

    Raises:
        UsageError: an option keeps a gate from being evaluated, or thresholds or baseline
            cannot be used.
    """
    config = session.config
    refuse_what_switches_gates_off(config, items, compare)
    machine = machine_of(config)
    try:
        thresholds = load_thresholds(suite / FILE_NAME, machine.hardware.key)
        baseline = load_baseline(suite, machine.hardware.key) if compare else None
    except (ThresholdsError, BaselineError) as error:
        raise pytest.UsageError(str(error)) from None
    perf_session = PerfSession(
        config, suite=suite, machine=machine, thresholds=thresholds, baseline=baseline
    )
    for item in ours:
        perf_session.adopt(item)
    if baseline is not None:
        found = set(perf_session.keys.values())
        gone = {k: names for k, names in baseline.markers().items() if k not in found}
        items += removed_benchmarks(session, suite, gone)
    config.pluginmanager.register(perf_session, "perfsuite-session")
    return perf_session


class PerfSession:
    """One session's benchmarks, verdicts and outcomes."""

    def __init__(
        self,
        config: pytest.Config,
        *,
        suite: Path,
        machine: Machine,
        thresholds: Thresholds,
        baseline: Baseline | None,
    ) -> None:
        self.keys: dict[str, str] = {}  # by node id
        self._config = config
        self._suite = suite
        self._machine = machine
        self._thresholds = thresholds
        self._baseline = baseline
        self._digits: Digits | None = None
        self._outcomes: dict[str, str] = {}
        self._rows: list[tuple[str, Verdict]] = []
        self._pages: list[str] = []
        self._saved: list[str] = []
        self._selected: set[str] = set()
        self._started = datetime.now(UTC)
        self._status = StatusLine(config)
        self._own = config._benchmarksession  # type: ignore[attr-defined]  # pytest-benchmark's
        # Its wide table sorts arms of different kinds by their fastest block; ours ends the
        # session unless the wide one is asked for.
        self._own.quiet = not self._own.verbose
        if self._own.json is not None:
            refuse_unwritable(self._own.json)

    def adopt(self, item: pytest.Item) -> None:
        """Prepare a benchmark: its key, and a timer that hands on the times we measured."""
        key = f"{item.path.relative_to(self._suite).as_posix()}::{item.nodeid.partition('::')[2]}"
        self.keys[item.nodeid] = key
        marker = item.get_closest_marker("benchmark")
        options = dict(marker.kwargs) if marker else {}
        item.add_marker(pytest.mark.benchmark(**options | {"timer": Replay()}), append=False)
        # It fails for a reason of its own if it gets no further; this would only add to that.
        unused = "ignore:Benchmark fixture was not used at all"
        item.add_marker(pytest.mark.filterwarnings(unused))

    def key_of(self, item: pytest.Item) -> str | None:
        """Return an item's key, or None if it is no benchmark of ours."""
        if isinstance(item, Removed):
            return item.key
        return self.keys.get(item.nodeid)

    @contextmanager
    def bench(self, item: pytest.Item, workload: Workload) -> Iterator[Bench]:
        """Return what the benchmark works with."""
        key = self.key_of(item)
        assert key is not None
        bench = item.stash[_BENCH] = Bench(
            key=key,
            machine=self._machine,
            markers=sorted({marker.name for marker in item.iter_markers()} - _MARKERS_THAT_ACT),
            workload=workload,
            digits=self._load(),
            thresholds=self._thresholds,
            report=self._status.show,
            budget_s=self._config.getoption("perf_budget"),
        )
        yield bench
        self._status.clear()

    def _load(self) -> Digits:
        if self._digits is None:
            source = self._config.getoption("perf_data")
            try:
                with self._status.uncaptured():
                    self._digits = self._machine.load(source)
            except DataError as error:
                pytest.exit(str(error), returncode=pytest.ExitCode.USAGE_ERROR)
        return self._digits

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Refuse to measure beside other workers."""
        if self._own.xdist_worker and self.key_of(item) is not None:
            pytest.fail("perfsuite cannot measure under xdist; run with -n0", pytrace=False)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        """Judge a benchmark once its body has run: here, so that the item itself fails."""
        try:
            yield
        except DataError as error:
            raise pytest.fail.Exception(str(error), pytrace=False) from None
        bench = item.stash.get(_BENCH, None)
        if bench is None:
            return
        if (fault := _unusable(bench.times_s)) is not None:
            pytest.fail(f"{bench.key} measured nothing: {fault}", pytrace=False)
        comparison: tuple[Verdict, ...] = ()
        if self._baseline is not None:
            comparison = compare(self._baseline, bench.comparable(), self._thresholds.compare)
        if not comparison:
            bench.gate(*bench.ungated())
        self._hand_over(item, bench, comparison)
        verdicts = (*bench.verdicts, *comparison)
        self._rows += [(bench.key, verdict) for verdict in verdicts]
        self._pages += bench.pages
        red = [str(verdict) for verdict in verdicts if self._is_red(verdict)]
        if red:
            pytest.fail("\n".join(red), pytrace=False)

    def _is_red(self, verdict: Verdict) -> bool:
        if verdict.outcome is Outcome.INCONCLUSIVE:
            return verdict.gate.partition(" ")[0] not in self._thresholds.warn
        return verdict.outcome is Outcome.FAIL

    def _hand_over(self, item: pytest.Item, bench: Bench, comparison: Sequence[Verdict]) -> None:
        """Put what was measured into pytest-benchmark's own record."""
        benchmark = item.funcargs["benchmark"]  # type: ignore[attr-defined]  # a Function has it
        marker = item.get_closest_marker("benchmark")
        assert marker is not None
        marker.kwargs["timer"].load(bench.times_s)
        benchmark.extra_info["perfsuite"] = bench.record(comparison)
        benchmark.pedantic(lambda: None, rounds=len(bench.times_s))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Iterator[None]:
        """Note each benchmark's outcome, also of those that left no figures."""
        report: Any = yield
        key = self.key_of(item)
        if key is not None:
            worst = report.outcome if call.when == "call" or report.skipped else "error"
            if report.outcome != "passed" or call.when == "call":
                self._outcomes[key] = worst
        return report  # type: ignore[no-any-return]  # a wrapper returns what it was given

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Iterator[None]:
        """Save the run, whole and under a new name, before pytest-benchmark would."""
        self._selected = {key for item in session.items if (key := self.key_of(item)) is not None}
        option = self._config.option
        red = []
        if not (option.collectonly or option.showfixtures or option.show_fixtures_per_test):
            red = self._unevaluated()
        try:
            self._saved = save_run(self._config)
        except OSError as error:
            red.append(f"the run could not be saved: {error}")
        self._pages += red
        if red and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        return (yield)

    def _unevaluated(self) -> list[str]:
        """Return what keeps a session without a failure from being green."""
        if self._baseline is None:
            unmeasured = sorted(self._selected - self._outcomes.keys())
            return [f"not measured, and so not green: {', '.join(unmeasured)}"] * bool(unmeasured)
        faults = [] if self._rows else ["no figure was compared, and so nothing is green"]
        skipped = [k for k in self._selected if self._outcomes.get(k, "skipped") == "skipped"]
        if skipped:
            faults.append(f"not compared, and so not green: {', '.join(sorted(skipped))} skipped")
        return faults

    def pytest_benchmark_update_json(self, output_json: dict[str, Any]) -> None:
        """Add what is known of the session as a whole."""
        hardware = self._machine.hardware
        output_json["perfsuite"] = {
            "schema": SCHEMA,
            "started": self._started.isoformat(timespec="seconds"),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "complete": self._selected <= self._outcomes.keys(),
            "hardware": hardware,
            "software": self._machine.software,
            "options": {
                name: self._config.getoption(name)
                for name in ("perf_device", "perf_workload", "perf_data", "perf_budget")
            },
            "items": {key: self._outcomes.get(key, "not run") for key in sorted(self._selected)},
        }

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """End the session with what was shown, the table of verdicts, and where it was saved."""
        versions = self._machine.software
        lines = [f"{self._machine.hardware}, torch {versions['torch']}"]
        if self._baseline is not None:
            lines += self._baseline.summary(versions)
        write_summary(terminalreporter, lines, self._pages, self._rows, self._saved)


def _unusable(times_s: Sequence[float]) -> str | None:
    try:
        median_s(times_s)
    except SampleError as error:
        return str(error)
    return None
