"""A busy machine: measured once more after a pause, told as contaminated, never as a regression."""

from collections.abc import Iterator

import pytest
from suites import Suite, edit, load, timed

from perfsuite.devices.host import CpuUse
from perfsuite.measuring import bench
from perfsuite.session import repeating

FIXTURE = """
import pytest


@pytest.fixture
def trained(perf):
    return perf


def test_a(trained):
    measure(trained)
"""
# It is twice as slow at first, and as fast as ever later.
RECOVERS = """


def test_a(perf):
    step_s = next(TIMES) * STEP_S
    perf.timed([step_s] * 5)
    perf.metric("step_s", step_s, unit="s", better="lower")
"""
# The second try comes to nothing.
ONCE = """
import pytest

TRIES = iter([False, True])


def test_a(perf):
    if next(TRIES):
        {second}
    measure(perf)
"""


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Suite:
    monkeypatch.setattr(repeating, "PAUSE_S", 0.0)
    made = Suite(pytester, monkeypatch)
    made.write("test_steps.py", timed("test_a"))
    made.baseline()
    made.step_s(0.02)
    return made


@pytest.fixture
def others(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the shares of the cores that others use while each `Bench` is used."""
    shares: list[float] = []

    def readings() -> Iterator[CpuUse]:
        for share in shares:
            yield CpuUse(at_s=0.0, cpus=1, busy_s=0.0, own_s=0.0)
            yield CpuUse(at_s=10.0, cpus=1, busy_s=10.0 * share, own_s=0.0)

    drawn = readings()
    monkeypatch.setattr(bench, "read_cpu_use", lambda: next(drawn))
    return shares


def recorded(suite: Suite) -> tuple[pytest.RunResult, dict[str, object]]:
    path = suite.folder / "now.json"
    path.unlink(missing_ok=True)
    result = suite.compare(f"--benchmark-json={path}")
    (entry,) = load(path)["benchmarks"]
    return result, entry["extra_info"]["perfsuite"]


def test_a_busy_machine_is_inconclusive_and_named(suite: Suite, others: list[float]) -> None:
    others += [0.6, 0.4]
    result, record = recorded(suite)
    result.assert_outcomes(failed=1)
    shown = " ".join(result.stdout.str().split())
    assert "INCONCLUSIVE compare step_s: 2.000x" in shown
    assert "(contaminated: other processes used 40% of the cores; not confirmed: " in shown
    assert "test_a was measured again: other processes used 60% of the cores" in shown
    assert "FAIL compare" not in shown
    assert record["contamination"] == ["other processes used 40% of the cores"]


def test_the_same_on_a_quiet_machine_is_a_regression(suite: Suite, others: list[float]) -> None:
    others += [0.05]
    result, record = recorded(suite)
    result.assert_outcomes(failed=1)
    assert "FAIL compare step_s: 2.000x" in " ".join(result.stdout.str().split())
    assert record["contamination"] == []


@pytest.mark.parametrize(
    ("times", "shares", "outcome"),
    [("[2, 1]", [0.6, 0.0], "passed"), ("[2, 2]", [0.6, 0.0], "failed")],
    ids=["it-was-the-load", "it-was-the-code"],
)
def test_a_second_measurement_on_a_quiet_machine_decides(
    suite: Suite, others: list[float], times: str, shares: list[float], outcome: str
) -> None:
    others += shares
    suite.step_s(0.01)
    body = f"{timed()}\nTIMES = iter({times})\n{RECOVERS}"
    suite.write("test_steps.py", body)
    result, record = recorded(suite)
    result.assert_outcomes(**{outcome: 1})
    assert record["contamination"] == []
    assert record["metrics"]["step_s"]["value"] == int(times[-2]) * 0.01  # type: ignore[index]  # JSON
    assert ("FAIL compare step_s: 2.000x" in result.stdout.str()) is (outcome == "failed")


def test_what_passes_on_a_busy_machine_passes_and_is_no_part_of_its_series(
    suite: Suite, others: list[float]
) -> None:
    others += [0.6]
    suite.step_s(0.01)
    result, record = recorded(suite)
    result.assert_outcomes(passed=1)
    assert record["contamination"] == ["other processes used 60% of the cores"]


def test_what_another_fixture_measures_is_not_measured_again(
    suite: Suite, others: list[float]
) -> None:
    others += [0.6]
    suite.write("test_steps.py", timed() + FIXTURE)
    result, _ = recorded(suite)
    result.assert_outcomes(failed=1)
    assert "test_a could not be measured again: other processes used 60%" in result.stdout.str()


@pytest.mark.parametrize(
    ("second", "why"),
    [
        ("raise MemoryError('512 GiB')", "MemoryError: 512 GiB"),
        ("pytest.skip('no GPU')", "Skipped: no GPU"),
        ("return", "TrainingError: it measured nothing: "),
    ],
    ids=["out-of-memory", "skipped", "nothing"],
)
def test_where_the_second_try_fails_the_first_one_stands(
    suite: Suite, others: list[float], second: str, why: str
) -> None:
    others += [0.6, 0.0]
    suite.write("test_steps.py", timed() + ONCE.format(second=second))
    result, record = recorded(suite)
    result.assert_outcomes(failed=1)
    shown = " ".join(result.stdout.str().split())
    assert "INCONCLUSIVE compare step_s: 2.000x" in shown
    assert f"test_a could not be measured again ({why}" in shown
    assert "): other processes used 60% of the cores" in shown
    assert "Traceback" not in shown
    assert record["contamination"] == ["other processes used 60% of the cores"]


def test_another_machine_is_inconclusive_and_not_measured_again(
    suite: Suite, others: list[float]
) -> None:
    others += [0.0]
    (promoted,) = suite.folder.glob("baselines/*/*.json")
    edit(promoted, ["perfsuite", "software", "cpu_capability"], "AVX9")
    for step_s in (0.02, 0.01):
        suite.step_s(step_s)
        others += [0.0]
        result, record = recorded(suite)
        result.assert_outcomes(failed=1)
        shown = result.stdout.str()
        assert "contaminated: CPU capability AVX9 -> " in " ".join(shown.split())
        assert "was measured again" not in shown
        assert len(record["contamination"]) == 1  # type: ignore[arg-type]  # JSON
