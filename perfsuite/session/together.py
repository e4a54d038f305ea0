"""What ranks do together in a session: they fail together, and one record is made of all."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from _pytest.junitxml import xml_key

from perfsuite.devices.ranks import Ranks, leave
from perfsuite.judging.gates import Verdict
from perfsuite.records.schema import Benchmark, Metric
from perfsuite.session.benchmark_adapter import PytestBenchmark


def take_seat(config: pytest.Config, ranks: Ranks) -> None:
    """Let a rank that does not lead say and save nothing, and each one leave at the end."""
    if ranks.many:
        config.add_cleanup(leave)
    if ranks.seat.leads:
        return
    PytestBenchmark(config).save_nothing()
    config.option.perf_report = None
    for plugin in (
        config.pluginmanager.get_plugin("terminalreporter"),
        config.stash.get(xml_key, None),
    ):
        if plugin is not None:
            config.pluginmanager.unregister(plugin)


def fail_together(ranks: Ranks, report: pytest.TestReport) -> None:
    """Let a phase of a benchmark fail on all ranks where it failed on any of them."""
    crash = getattr(report.longrepr, "reprcrash", None)
    text = str(report.longrepr) if crash is None else crash.message
    told = ranks.each((report.outcome, text.strip().partition("\n")[0] if text else ""))
    if report.failed:
        return
    for rank, (outcome, why) in enumerate(told):
        if outcome == "failed":
            report.outcome = "failed"
            report.longrepr = f"rank {rank} of {len(ranks)}: {why}"
            return


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
