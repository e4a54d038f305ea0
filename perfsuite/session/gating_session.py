"""What both kinds of session do: keep outcomes and verdicts, show them, and save them."""

import gc
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from perfsuite.judging.gates import Outcome, Verdict
from perfsuite.records.schema import REPORT_FILES, SCHEMA
from perfsuite.records.wording import simulated_note
from perfsuite.session.benchmark_adapter import PytestBenchmark
from perfsuite.session.saving import RUN_FILE, refuse_unwritable, save_run
from perfsuite.session.terminal import StatusLine, write_summary

if TYPE_CHECKING:
    from perfsuite.session.together import Together


class GatingSession:
    """A pytest plugin that keeps the verdicts on all benchmarks, and shows them at the end.

    Attributes:
        keys: of the benchmarks, by node id.
        rows: (benchmark, verdict), in the order in which they were judged.
        pages: texts to be shown at the end.
        outcomes: pytest's word for each item that ran, by key.
        selected: keys of the items that were to run; known once the session ends.
        benchmark: pytest-benchmark's part of the session.
        status: shows progress.
        together: what its ranks do together, where it may have some.
    """

    together: "Together | None" = None

    def __init__(self, config: pytest.Config) -> None:
        self.keys: dict[str, str] = {}
        self.rows: list[tuple[str, Verdict]] = []
        self.pages: list[str] = []
        self.outcomes: dict[str, str] = {}
        self.selected: set[str] = set()
        self.status = StatusLine(config)
        self._config = config
        self._saved: list[str] = []
        self._unevaluated: list[str] = []
        self._other_failures: list[str] = []  # of what is no benchmark of ours
        self._started = datetime.now(UTC)
        self.benchmark = PytestBenchmark(config)
        self.benchmark.hide_table()
        if self.benchmark.json_path is not None:
            refuse_unwritable("--benchmark-json", self.benchmark.json_path)
        self._report: Path | None = None
        if (folder := config.getoption("perf_report")) is not None:
            self._report = config.invocation_params.dir / folder
            for name in (RUN_FILE, *REPORT_FILES):
                refuse_unwritable("--perf-report", self._report / name)

    def key_of(self, item: pytest.Item) -> str | None:
        """Return an item's key, None if it is not a benchmark of perfsuite."""
        return self.keys.get(item.nodeid)

    def header(self) -> list[str]:
        """Return lines that say what was measured on, and compared with."""
        raise NotImplementedError

    def section(self) -> dict[str, Any]:
        """Return what the run's JSON says of the session as a whole, such as its hardware."""
        raise NotImplementedError

    def past(self) -> list[Path]:
        """Return earlier runs that a report shows beside this one, the newest first."""
        return []

    def unevaluated(self) -> list[str]:
        """Return why a session fails in which no test does."""
        unmeasured = sorted(self.selected - self.outcomes.keys())
        return [f"not measured, so the session fails: {', '.join(unmeasured)}"] * bool(unmeasured)

    def uncompared(self, *, compared: bool) -> list[str]:
        """Return why a session fails that was to compare; `compared` if any figure was."""
        faults = [] if compared else ["no figure was compared, so the session fails"]
        skipped = [k for k in self.selected if self.outcomes.get(k, "skipped") == "skipped"]
        if skipped:
            names = ", ".join(sorted(skipped))
            faults.append(f"skipped and not compared, so the session fails: {names}")
        return faults

    def judge(
        self,
        key: str,
        verdicts: Sequence[Verdict],
        warn: Sequence[str],
        reasons: Sequence[str] = (),
    ) -> None:
        """Keep the verdicts on a benchmark, and fail its item if one is red, with the reasons."""
        self.rows += [(key, verdict) for verdict in verdicts]
        red = [str(verdict) for verdict in verdicts if _is_red(verdict, warn)]
        if red:
            pytest.fail("\n".join([*red, *(f"  {line}" for line in reasons)]), pytrace=False)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Count collection errors: nothing else has failed so far."""
        if (errors := session.testsfailed) > 0:
            self._other_failures.append(f"{errors} collection error{'s' if errors > 1 else ''}")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self) -> Iterator[None]:
        """Leave what was imported out of each collection of garbage: 0.2 s, a dozen times."""
        if gc.get_freeze_count():  # by somebody else, and so not to be undone here
            return (yield)
        gc.collect()
        gc.freeze()
        try:
            return (yield)
        finally:
            gc.unfreeze()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Iterator[None]:
        """Keep each benchmark's outcome, also of those that left no figures."""
        report: Any = yield
        key = self.key_of(item)
        if key is not None and self.together is not None:
            self.together.phase(report)
        if key is None and report.failed:
            self._other_failures.append(item.nodeid)
        if key is not None:
            worst = report.outcome if call.when == "call" or report.skipped else "error"
            if report.outcome != "passed" or call.when == "call":
                self.outcomes[key] = worst
        return report  # type: ignore[no-any-return]  # a wrapper returns what it was given

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Iterator[None]:
        """Save the run, whole and under a new name, before pytest-benchmark would."""
        self.selected = {key for item in session.items if (key := self.key_of(item)) is not None}
        option = self._config.option
        red = []
        if not (option.collectonly or option.showfixtures or option.show_fixtures_per_test):
            red = self.unevaluated()
        if self._other_failures:
            red.append(f"other failures: {', '.join(dict.fromkeys(self._other_failures))}")
        if self.together is not None:
            red += self.together.finish(int(session.exitstatus or bool(red)))
        self._unevaluated = list(red)
        source = None
        try:
            self._saved, source = save_run(self.benchmark, self._report)
        except OSError as error:
            red.append(f"the run could not be saved: {error}")
        if self._report is not None and source is not None:
            try:
                self._saved += _report_on(source, self.past(), self._report)
            except Exception as error:  # verdicts and JUnit come after this
                why = f"{type(error).__name__}: {error}"
                red.append(f"the report could not be written, the run is saved: {why}")
        self.pages += red
        if red and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        yield
        # What came of all ranks is what rank 0 ends with.
        if self.together is not None and not self.together.leads:
            session.exitstatus = pytest.ExitCode.OK

    def pytest_benchmark_update_json(self, output_json: dict[str, Any]) -> None:
        """Add perfsuite's section to the run."""
        output_json["perfsuite"] = {
            "schema": SCHEMA,
            "started": self._started.isoformat(timespec="seconds"),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "complete": self.selected <= self.outcomes.keys(),
            **self.section(),
            "options": {
                name: self._config.getoption(name)
                for name in ("perf_device", "perf_workload", "perf_data", "perf_budget")
            },
            "unevaluated": self._unevaluated,
            "items": {key: self.outcomes.get(key, "not run") for key in sorted(self.selected)},
        }

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Show the table of verdicts, what comes with it, and where the run was saved."""
        write_summary(terminalreporter, self.header(), self.pages, self.rows, self._saved)


def told_machine(shown: str, key: str, software: Mapping[str, Any]) -> list[str]:
    """Return the first lines of a header: what was measured on, and what cannot be seen there."""
    lines = [*simulated_note(key), f"{shown}, torch {software['torch']}"]
    if "throttling" in software:
        lines.append(f"throttling {software['throttling']}")
    return lines


def _report_on(source: Path, past: Sequence[Path], folder: Path) -> list[str]:
    # Late, since matplotlib takes a second to import, and most sessions need none.
    from perfsuite.report.render import write_report

    return [f"wrote {path}" for path in write_report(source, past, folder)]


def _is_red(verdict: Verdict, warn: Sequence[str]) -> bool:
    if verdict.outcome is Outcome.INCONCLUSIVE:
        return verdict.gate.partition(" ")[0] not in warn
    return verdict.outcome is Outcome.FAIL
