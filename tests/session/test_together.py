"""What ranks do together: they fail together, and one record is made of what all found."""

from typing import Any

import msgspec
import pytest

from perfsuite.devices.cpu import Cpu
from perfsuite.devices.ranks import Ranks
from perfsuite.devices.torchrun import Seat
from perfsuite.judging.gates import Outcome, Verdict
from perfsuite.records.schema import Benchmark, Metric
from perfsuite.session.together import Together, record_of_ranks


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


class NoWait:
    """A watch that lets everyone pass, and keeps what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def door(self, name: str, failed: str = "") -> None:
        self.told.append((name, failed))

    def wait_for_report(self) -> None:
        self.told.append(("report", ""))


def together(*others: Any) -> Together:
    watch: Any = NoWait()
    return Together(Others(*others), Cpu(), watch)


def test_a_phase_that_failed_on_another_rank_fails_here_and_says_where() -> None:
    mine = report("passed")
    together("", "RuntimeError: no").phase(mine)
    assert mine.failed
    assert mine.longrepr == "rank 2 of 3: RuntimeError: no"


def test_who_failed_keeps_his_own_reason() -> None:
    mine = report("failed", "my own\nmany lines")
    together("another's").phase(mine)
    assert mine.longrepr == "my own\nmany lines"


def test_what_failed_nowhere_stays_as_it_is() -> None:
    mine = report("passed")
    together("").phase(mine)
    assert mine.passed


def test_what_is_skipped_on_all_ranks_is_skipped() -> None:
    mine = report("skipped", ("test_a.py", 1, "Skipped: no GPU"))
    together("Skipped: no GPU").phase(mine)
    assert mine.skipped


def test_what_is_skipped_on_one_rank_alone_has_failed() -> None:
    mine = report("passed")
    together("Skipped: no GPU").phase(mine)
    assert mine.longrepr == "rank 1 of 2: Skipped: no GPU"


def test_a_body_that_fails_on_another_rank_fails_here() -> None:
    failed = pytest.raises(pytest.fail.Exception, match=r"^rank 1 of 2: ValueError: no$")
    with failed, together("ValueError: no").body():
        pass


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("no\nmore"), "ValueError: no"),
        (MemoryError("512 GiB"), "it ran out of memory: MemoryError: 512 GiB"),
    ],
)
def test_before_a_rank_waits_for_the_others_it_tells_why_it_failed(
    error: Exception, told: str
) -> None:
    watch: Any = NoWait()
    with pytest.raises(type(error)), Together(Others(""), Cpu(), watch).body():
        raise error
    assert watch.told == [("body", told)]


def test_a_session_that_fails_on_another_rank_alone_fails() -> None:
    assert together(0, 1).finish(0) == ["rank 2 of 3 ended with exit code 1, so the session fails"]
    assert together(1).finish(1) == []  # rank 0 says why by itself
    assert together(0).finish(0) == []


def test_alone_nothing_is_waited_for() -> None:
    alone = Together(Ranks(), Cpu(), None)
    mine = report("passed")
    alone.phase(mine)
    with alone.body(), alone.alone():
        assert alone.finish(1) == []
    assert mine.passed
    assert alone.leads


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


def test_what_one_rank_refuses_all_refuse_in_the_same_words() -> None:
    for others, said in ((("",), "no"), (("ours",), "no")):
        with pytest.raises(pytest.UsageError, match=f"^{said}$"), together(*others).refusing():
            raise pytest.UsageError("no")
    with (
        pytest.raises(pytest.UsageError, match=r"^rank 1 of 2: theirs$"),
        together("theirs").refusing(),
    ):
        pass
    with together("").refusing():
        pass


def test_ranks_that_collected_other_benchmarks_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    here = together("")
    monkeypatch.setattr(Others, "agreed", lambda _, value: value)
    here.same(["a", "b"])
    monkeypatch.setattr(Others, "agreed", lambda _, value: value + 1)
    with pytest.raises(pytest.UsageError, match=r"other benchmarks than rank 0.*2 items"):
        here.same(["a", "b"])
