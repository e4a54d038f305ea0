"""A pytest session with benchmarks of perfsuite: gates, comparison, saving and the table.

Registered as a plugin once such benchmarks have been collected. Whatever would leave a gate
unevaluated is refused here, before anything is measured.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import pytest

from perfsuite.devices.precision import Precision
from perfsuite.judging.confirmation import suspects
from perfsuite.judging.contamination import Contamination
from perfsuite.judging.gates import Outcome
from perfsuite.judging.stopping import Pot
from perfsuite.judging.thresholds import FILE_NAME, Thresholds, ThresholdsError, load_thresholds
from perfsuite.measuring.bench import Bench
from perfsuite.measuring.machine import Machine
from perfsuite.measuring.turns import Alone
from perfsuite.records.baseline import Baseline, BaselineError, compare, load_baseline, with_nights
from perfsuite.records.chain import Promotion, accepted_since, creep
from perfsuite.records.ledgers import AcceptedLedgers, LedgerError, read_ledgers
from perfsuite.records.notes import Notes
from perfsuite.records.schema import Benchmark, Confirmation
from perfsuite.session.collection import (
    MARKERS_THAT_ACT,
    Removed,
    key_in,
    refuse_what_switches_gates_off,
    removed_benchmarks,
)
from perfsuite.session.gating_session import GatingSession, told_machine
from perfsuite.session.measured_on import hide_unused_gpus, machine_of
from perfsuite.session.repeating import measure_again
from perfsuite.session.together import Together, record_of_ranks, take_seat
from perfsuite.training.batches import TrainingError
from perfsuite.training.data import DataError
from perfsuite.training.workload import Workload

if TYPE_CHECKING:
    from perfsuite.judging.gates import Verdict
    from perfsuite.records.schema import Run

_BENCH = pytest.StashKey[Bench]()


def start_session(
    session: pytest.Session,
    suite: Path,
    items: list[pytest.Item],
    ours: Sequence[pytest.Item],
    compare: Any,
    *,
    confirmer: Callable[..., "Confirms"],
) -> "PerfSession":
    """Check the options, load thresholds and baseline, and register the session for `ours`.

    An item that fails is added to `items` for each benchmark that the baseline has and the suite
    no longer has. `compare` is the value of --benchmark-compare: False without it, True if it has
    none.

    Raises:
        UsageError: an option keeps a gate from being evaluated, or thresholds or baseline
            cannot be used.
    """
    config = session.config
    if len(ours) == len(items):  # nobody else here may want a GPU
        hide_unused_gpus(config)
    refuse_what_switches_gates_off(config, items, compare)
    machine = machine_of(config)
    together = take_seat(config, machine.ranks, machine.device)
    with together.refusing():
        try:
            thresholds = load_thresholds(suite / FILE_NAME, machine.hardware.key)
            baseline = load_baseline(suite, machine.hardware.key) if compare else None
            if baseline is not None and (folder := config.getoption("perf_history")) is not None:
                baseline = with_nights(baseline, config.invocation_params.dir / folder)
            chain = accepted_since(baseline, thresholds.creep.since) if baseline is not None else []
            torch, kind = str(machine.software["torch"]), machine.device.kind
            ledgers = read_ledgers(suite, torch=torch, device=kind)
        except (ThresholdsError, BaselineError, LedgerError) as error:
            raise pytest.UsageError(str(error)) from None
        perf_session = PerfSession(
            config, suite=suite, machine=machine, thresholds=thresholds, baseline=baseline
        )
    perf_session.chain, perf_session.ledgers = chain, ledgers
    perf_session.together = together
    if baseline is not None:
        perf_session.confirms = confirmer(
            config=config,
            suite=suite,
            baseline=baseline,
            software=machine.software,
            thresholds=thresholds,
            status=perf_session.status,
            pot=Pot(config.getoption("perf_budget")),
        )
    for item in ours:
        perf_session.adopt(item)
    found = set(perf_session.keys.values())
    lacking = set(map(str, Precision)) - set(map(str, machine.precisions))
    # Ranks leave out what counts: it is of one.
    gone = [] if machine.ranks.many else ledgers.gone(found, lacking)
    known = {key: list[str]() for key in gone}
    if baseline is not None:
        known |= baseline.markers()
    items += removed_benchmarks(session, suite, {key: known[key] for key in known.keys() - found})
    config.pluginmanager.register(perf_session, "perfsuite-session")
    return perf_session


class Confirms(Protocol):
    """Looks into what a comparison with promoted runs suspects."""

    def confirm(
        self, now: Benchmark, screened: Sequence["Verdict"], changes: Sequence[str]
    ) -> tuple[list["Verdict"], Confirmation | None, list[str]]:
        """Return the verdicts that count, how they came about, and why they are red."""

    def summary(self) -> list[str]:
        """Return what that has cost, a line each."""


class PerfSession(GatingSession):
    """A session that gates one tree, and compares it with promoted runs if it was asked to."""

    confirms: Confirms
    together: Together
    chain: list[Promotion]  # that ends with the baseline
    ledgers: AcceptedLedgers

    def __init__(
        self,
        config: pytest.Config,
        *,
        suite: Path,
        machine: Machine,
        thresholds: Thresholds,
        baseline: Baseline | None,
    ) -> None:
        super().__init__(config)
        self._suite = suite
        self._machine = machine
        self._thresholds = thresholds
        self._baseline = baseline

    def adopt(self, item: pytest.Item) -> None:
        """Give a benchmark its key."""
        self.keys[item.nodeid] = key_in(self._suite, item)

    def key_of(self, item: pytest.Item) -> str | None:
        """Return an item's key, also that of a removed benchmark."""
        return item.key if isinstance(item, Removed) else super().key_of(item)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Count collection errors, and see that all ranks run the same."""
        super().pytest_collection_finish(session)
        self.together.same([item.nodeid for item in session.items])

    @contextmanager
    def bench(self, item: pytest.Item, workload: Workload) -> Iterator[Bench]:
        """Return what the benchmark works with."""
        key = self.key_of(item)
        assert key is not None
        markers = sorted({marker.name for marker in item.iter_markers()} - MARKERS_THAT_ACT)
        budget_s = self._config.getoption("perf_budget")
        bench = item.stash[_BENCH] = Bench(
            Notes(key, markers=markers),
            machine=self._machine,
            workload=workload,
            thresholds=self._thresholds,
            turns=Alone(self.status.show, budget_s=budget_s, now=self._machine.time_s),
            promoted={} if self._baseline is None else self._baseline.config(key),
        )
        try:
            yield bench
        finally:
            self.status.clear()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Refuse to measure beside other workers."""
        if self.benchmark.is_xdist_worker and self.key_of(item) is not None:
            pytest.fail("perfsuite cannot measure under xdist; run with -n0", pytrace=False)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        """Judge a benchmark once its body has run: here, so that the item itself fails."""
        try:
            with self.together.body() if self.key_of(item) is not None else nullcontext():
                yield
        except DataError as error:  # no other benchmark could have them either
            pytest.exit(str(error), returncode=pytest.ExitCode.USAGE_ERROR)
        except TrainingError as error:
            raise pytest.fail.Exception(str(error), pytrace=False) from None
        bench = item.stash.get(_BENCH, None)
        if bench is None:
            return
        notes = bench.notes
        if (fault := notes.fault()) is not None:
            pytest.fail(f"{notes.key} measured nothing: {fault}", pytrace=False)
        if self._baseline is None:
            notes.gate(*notes.ungated())
            record = self._record(bench)
        else:
            bench, record, screened = self._undisturbed(self._baseline, item, bench)
            notes, record = bench.notes, self._compared(self._baseline, record, screened)
        counted, changed = self.ledgers.judge(record)
        verdicts, why = [*record.verdicts, *counted], [*changed, *record.reasons]
        record = msgspec.structs.replace(record, verdicts=verdicts, reasons=why)
        document = msgspec.to_builtins(record, enc_hook=repr)
        self.benchmark.record(item, notes.times_s, document)
        self.pages += notes.pages
        self.judge(notes.key, record.verdicts, self._thresholds.warn, record.reasons)

    def _undisturbed(
        self, baseline: Baseline, item: pytest.Item, bench: Bench
    ) -> tuple[Bench, Benchmark, tuple["Verdict", ...]]:
        """Return what was measured and what the screen says of it.

        What other work disturbed is measured once more, if it is not clearly green all the same;
        where that fails, the first record stands.
        """

        def screen(record: Benchmark) -> tuple[Contamination, tuple["Verdict", ...]]:
            found = baseline.contamination(record, self._machine.software, self._machine.facts)
            return found, compare(baseline, record, self._thresholds.compare, found)

        record = self._record(bench)
        found, screened = screen(record)
        # A pause makes no other machine.
        disturbed = suspects(screened) and found.disturbed and not found.elsewhere
        if self._machine.ranks.agreed(bool(disturbed)):
            again, how = measure_again(
                item, bench, lambda: self.bench(item, bench.workload), self.together.body
            )
            why = "; ".join(found.disturbed)
            if again is not None:
                bench, record = again, self._record(again)
                found, screened = screen(record)
            self.pages.append(f"{bench.notes.key} {how}: {why}")
        return bench, msgspec.structs.replace(record, contamination=found.reasons), screened

    def _compared(
        self, baseline: Baseline, record: Benchmark, screened: Sequence["Verdict"]
    ) -> Benchmark:
        """Return a record with what the baseline says of it, confirmed where that can be."""
        if not self._machine.ranks.seat.leads:
            return record  # rank 0 says it, and all fail where it does
        software = self._machine.software
        changes = baseline.environment(record, software)
        with self.together.alone():
            settled, confirmation, why = self.confirms.confirm(record, screened, changes)
        if not why and any(verdict.outcome is Outcome.FAIL for verdict in settled):
            why = baseline.reasons(record, software, len(self._machine.ranks), settled)
        crept = creep(self.chain, baseline, record.key, self._thresholds)
        verdicts = [*record.verdicts, *settled, *crept]
        return msgspec.structs.replace(
            record, verdicts=verdicts, confirmation=confirmation, reasons=why
        )

    def _record(self, bench: Bench) -> Benchmark:
        return record_of_ranks(self._machine.ranks, bench.record())

    @property
    def _promoted(self) -> tuple["Run", ...]:
        """The runs that are compared with, none without a baseline."""
        return () if self._baseline is None else self._baseline.runs

    def past(self) -> list[Path]:
        """Return the promoted runs."""
        return [run.path for run in reversed(self._promoted)]

    def unevaluated(self) -> list[str]:
        """Return why a session fails in which no test does."""
        if self._baseline is None:
            return super().unevaluated()
        return self.uncompared(compared=bool(self.rows))

    def section(self) -> dict[str, Any]:
        """Return hardware and software, and when the promoted runs were started."""
        return {
            "hardware": self._machine.hardware,
            "software": self._machine.software,
            "facts": self._machine.facts,
            "baseline": [run.started for run in self._promoted],
        }

    def header(self) -> list[str]:
        """Return lines that say what was measured on, and compared with."""
        versions = self._machine.software
        lines = told_machine(str(self._machine.hardware), self._machine.hardware.key, versions)
        if self._baseline is not None:
            lines += [*self._baseline.summary(versions), *self.confirms.summary()]
        return lines
