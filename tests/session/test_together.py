"""What ranks do together: they fail together, and one record is made of what all found."""

from typing import Any

import msgspec
import pytest

from perfsuite.devices.ranks import Ranks
from perfsuite.devices.torchrun import Seat
from perfsuite.judging.gates import Outcome, Verdict
from perfsuite.records.schema import Benchmark, Metric
from perfsuite.session.together import fail_together, record_of_ranks


class Others(Ranks):
    """Rank 0 of several, the others of which give what the test says."""

    def __init__(self, *others: Any) -> None:
        super().__init__(Seat(ranks=1 + len(others), local_ranks=1 + len(others)))
        self._others = others

    def each(self, value: Any) -> list[Any]:
        self.given = value
        return [value, *self._others]


def report(outcome: Any, longrepr: Any = None) -> pytest.TestReport:
    return pytest.TestReport(
        nodeid="test_a", location=("", 0, ""), keywords={}, outcome=outcome,
        longrepr=longrepr, when="call",
    )  # fmt: skip


def test_a_phase_that_failed_on_another_rank_fails_here_and_says_where() -> None:
    mine = report("passed")
    fail_together(Others(("passed", ""), ("failed", "RuntimeError: no")), mine)
    assert mine.failed
    assert mine.longrepr == "rank 2 of 3: RuntimeError: no"


def test_who_failed_keeps_his_own_reason() -> None:
    mine = report("failed", "my own\nmany lines")
    fail_together(Others(("failed", "another's")), mine)
    assert mine.longrepr == "my own\nmany lines"


@pytest.mark.parametrize("outcome", ["passed", "skipped"])
def test_what_failed_nowhere_stays_as_it_is(outcome: str) -> None:
    mine = report(outcome)
    fail_together(Others((outcome, "")), mine)
    assert mine.outcome == outcome


def verdict(outcome: Outcome, figure: str, gate: str = "probe dtypes") -> Verdict:
    return Verdict(gate=gate, outcome=outcome, figure=figure, threshold="alike")


def record(*verdicts: Verdict, **metrics: Metric) -> Benchmark:
    return Benchmark(key="test_a.py::test_a", config={}, metrics=metrics, verdicts=[*verdicts])


def test_each_gate_has_the_worst_verdict_of_all_ranks_and_says_whose_it_is() -> None:
    good, other = verdict(Outcome.PASS, "good"), verdict(Outcome.PASS, "fine", gate="finite")
    bad = verdict(Outcome.FAIL, "bad")
    found = record_of_ranks(Others(record(bad, other)), record(good, other))
    assert found.verdicts == [verdict(Outcome.FAIL, "rank 1: bad"), other]


def test_what_all_ranks_say_is_said_once() -> None:
    bad = verdict(Outcome.FAIL, "bad")
    assert record_of_ranks(Others(record(bad)), record(bad)).verdicts == [bad]


def test_a_gate_with_two_verdicts_keeps_both() -> None:
    low, high = verdict(Outcome.PASS, "low"), verdict(Outcome.PASS, "high")
    worse = verdict(Outcome.FAIL, "too high")
    found = record_of_ranks(Others(record(low, worse)), record(low, high)).verdicts
    assert [each.figure for each in found] == ["low", "rank 1: too high"]


def test_a_figure_that_ranks_do_not_share_is_the_worst_one() -> None:
    def of(peak: float, rate: float) -> Benchmark:
        return record(
            peak_bytes=Metric(value=peak, unit="B", better="lower"),
            images_per_s=Metric(value=rate, unit="1/s", better="higher"),
        )

    found = record_of_ranks(Others(of(7.0, 2.0)), of(5.0, 3.0)).metrics
    assert (found["peak_bytes"].value, found["images_per_s"].value) == (7.0, 2.0)


def test_what_a_benchmark_kept_besides_is_told_to_nobody_and_is_rank_0_s() -> None:
    mine = msgspec.structs.replace(record(), raw={"blocks": [1]}, config={"samples": 8})
    others = Others(record())
    assert record_of_ranks(others, mine) == mine
    assert (others.given.raw, others.given.config) == ({}, {})


def test_alone_a_record_stays_as_it_is() -> None:
    alone = record(verdict(Outcome.PASS, "good"))
    assert record_of_ranks(Ranks(), alone) is alone
