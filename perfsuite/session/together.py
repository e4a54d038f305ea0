"""What ranks do together in a session: they fail together, and one record is made of all."""

import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any
from zlib import crc32

import msgspec
import pytest
from _pytest.junitxml import xml_key

from perfsuite.devices.device import Device
from perfsuite.devices.ranks import Ranks, leave
from perfsuite.judging.gates import Verdict
from perfsuite.records.schema import Benchmark, Metric
from perfsuite.session.benchmark_adapter import PytestBenchmark
from perfsuite.session.rank_watch import RankWatch


class Together:
    """What the ranks of a session do at its turns; nothing where there is one."""

    def __init__(self, ranks: Ranks, device: Device, watch: RankWatch | None) -> None:
        self._ranks, self._device, self._watch = ranks, device, watch
        self.leads = ranks.seat.leads

    def alone(self) -> AbstractContextManager[None]:
        """Let rank 0 do what the others wait for."""
        return nullcontext() if self._watch is None else self._watch.alone()

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Refuse on all ranks what is refused on any of them."""
        why = ""
        try:
            yield
        except pytest.UsageError as error:
            why = str(error)
        for rank, each in enumerate(self._ranks.each(why)):
            if each:
                whose = f"rank {rank} of {len(self._ranks)}: " if rank else ""
                raise pytest.UsageError(f"{whose}{each}")

    def same(self, items: Sequence[str]) -> None:
        """Refuse ranks that would not all run the same benchmarks, in the same order.

        Raises:
            UsageError: that is so.
        """
        with self.refusing():
            number = crc32("\n".join(items).encode())
            if self._ranks.agreed(number) != number:
                raise pytest.UsageError(
                    f"it collected other benchmarks than rank 0, or in another order ({len(items)}"
                    " items): parametrize over lists and not over sets, and shuffle none"
                )

    @contextmanager
    def body(self) -> Iterator[None]:
        """Run the body of a benchmark; it fails on all ranks where it does on any of them."""
        try:
            yield
        except BaseException as error:
            text = str(error).strip().partition("\n")[0]
            memory = "it ran out of memory: " if self._device.ran_out(error) else ""
            self._others("body", f"{memory}{type(error).__name__}: {text}")
            raise
        if (why := self._others("body", "")) is not None:
            pytest.fail(why, pytrace=False)

    def phase(self, report: pytest.TestReport) -> None:
        """Let a phase of a benchmark fail on all ranks where it did not pass on any of them."""
        text, why = report.longrepr, ""
        if not report.passed:
            crash = getattr(text, "reprcrash", None)
            shown = text[-1] if isinstance(text, tuple) else text
            why = f"{shown or report.outcome if crash is None else crash.message}"
        other = self._others("phase", why.strip().partition("\n")[0])
        if report.passed and other is not None:
            report.outcome, report.longrepr = "failed", other

    def _others(self, name: str, why: str) -> str | None:
        """Tell the others why it failed here, if it did; return which of them did, and why."""
        if self._watch is None:
            return None
        self._watch.door(name, why)
        failed = [(rank, each) for rank, each in enumerate(self._ranks.each(why)) if each]
        return f"rank {failed[0][0]} of {len(self._ranks)}: {failed[0][1]}" if failed else None

    def finish(self, code: int) -> list[str]:
        """Tell the others the exit code so far; return why the session fails, where that is theirs.

        From here on they wait for rank 0, which saves and reports.
        """
        if self._watch is None:
            return []
        self._watch.door("finish", f"it ended its session with exit code {code}")
        codes = self._ranks.each(code)
        self._watch.wait_for_report()
        return [
            f"rank {rank} of {len(codes)} ended with exit code {each}, so the session fails"
            for rank, each in enumerate(codes)
            if each and not codes[0]
        ]


def take_seat(config: pytest.Config, ranks: Ranks, device: Device) -> Together:
    """Let a rank that does not lead say and save nothing, and each one leave at the end."""
    if not ranks.many:
        return Together(ranks, device, None)
    capture = config.pluginmanager.get_plugin("capturemanager")
    with nullcontext() if capture is None else capture.global_and_fixture_disabled():
        terminal = os.dup(sys.stderr.fileno())
    watch = RankWatch(ranks, terminal)
    config.add_cleanup(leave)
    config.add_cleanup(watch.end)  # before that
    if not ranks.seat.leads:
        PytestBenchmark(config).save_nothing()
        config.option.perf_report = None
        manager = config.pluginmanager
        if (reporter := manager.get_plugin("terminalreporter")) is not None:
            manager.unregister(reporter)
        if (junit := config.stash.get(xml_key, None)) is not None:
            del config.stash[xml_key]  # or it would be looked for at the end
            manager.unregister(junit)
    return Together(ranks, device, watch)


def record_of_ranks(ranks: Ranks, record: Benchmark) -> Benchmark:
    """Return one record of what all ranks found: rank 0's, with each gate's worst verdict.

    A figure that ranks do not share, as a peak of memory, is the worst of all.
    """
    if not ranks.many:
        return record
    # Not what it kept besides, of which a run has rank 0's alone.
    records = ranks.each(
        msgspec.structs.replace(record, config={}, operators=None, state={}, arms={}, raw={})
    )
    metrics = {
        name: _worst([each.metrics[name] for each in records if name in each.metrics])
        for name in records[0].metrics
    }
    return msgspec.structs.replace(record, metrics=metrics, verdicts=_verdicts(records))


def _worst(metrics: Sequence[Metric]) -> Metric:
    pick: Any = max if metrics[0].better == "lower" else min
    worst: Metric = pick(metrics, key=lambda metric: metric.value)
    return worst


def _verdicts(records: Sequence[Benchmark]) -> list[Verdict]:
    found: dict[tuple[str, int], Verdict] = {}
    for rank, record in enumerate(records):
        seen = Counter[str]()  # a gate may have several verdicts
        for verdict in record.verdicts:
            gate = (verdict.gate, seen[verdict.gate])
            seen[verdict.gate] += 1
            known = found.get(gate)
            if known is None or verdict.outcome.rank < known.outcome.rank:
                told = f"rank {rank}: {verdict.figure}" if rank else verdict.figure
                found[gate] = replace(verdict, figure=told)
    return list(found.values())
