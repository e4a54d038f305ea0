"""Who else was at work, and whether it is the machine of the promoted runs at all."""

from typing import Any

import pytest

from perfsuite.judging.contamination import MOST_OTHERS, Contamination, contamination
from perfsuite.judging.estimates import Estimate
from perfsuite.judging.gates import Outcome, not_worse

FACTS: dict[str, Any] = {
    "CPU": "A",
    "driver": "550.1",
    "MIG mode": 0,
    "ECC": 1,
    "power limit in W": 700.0,
}
QUIET: dict[str, dict[str, Any]] = {
    "before": {"other_processes": 0},
    "after": {"others_cpu": 0.02, "other_processes": 0},
}


def state(**after: Any) -> dict[str, dict[str, Any]]:
    return {"before": {}, "after": after}


@pytest.mark.parametrize(
    ("now", "reason"),
    [
        (state(others_cpu=0.5), "other processes used 50% of the cores (2% when promoted)"),
        (state(other_processes=1), "other processes on the GPU: 1 (0 when promoted)"),
        ({"before": {"other_processes": 2}, "after": {}}, "other processes on the GPU: 2 (0 when"),
    ],
    ids=["load", "gpu", "gpu-at-first"],
)
def test_other_work_is_named_and_may_be_over_soon(now: Any, reason: str) -> None:
    found = contamination(now, FACTS, promoted=[(QUIET, FACTS)])
    assert [line.startswith(reason) for line in found.disturbed] == [True]
    assert found.elsewhere == ()


@pytest.mark.parametrize(
    "now",
    [QUIET, state(others_cpu=0.02 + MOST_OTHERS), state(others_cpu=None), state(), {}],
    ids=["quiet", "a-little", "unknown", "not-read", "older"],
)
def test_a_quiet_machine_is_not_contaminated(now: Any) -> None:
    assert contamination(now, FACTS, promoted=[(QUIET, FACTS)]).reasons == []


def test_what_was_usual_when_the_runs_were_promoted_is_usual_now() -> None:
    busy = state(others_cpu=0.4, other_processes=1)
    promoted = [(QUIET, FACTS), (busy, FACTS), (busy, FACTS)]
    assert contamination(busy, FACTS, promoted=promoted).reasons == []
    # One busy run among them is not how the machine usually is.
    for few in ([(QUIET, FACTS), (QUIET, FACTS), (busy, FACTS)], promoted[:2]):
        load, beside = contamination(busy, FACTS, promoted=few).disturbed
        assert load == "other processes used 40% of the cores (2% when promoted)"
        assert beside == "other processes on the GPU: 1 (0 when promoted)"


def test_without_promoted_runs_the_machine_has_to_be_quiet() -> None:
    (line,) = contamination(state(others_cpu=0.11, other_processes=1), FACTS, promoted=[]).reasons
    assert line == "other processes used 11% of the cores"
    assert contamination(QUIET, FACTS, promoted=[]).reasons == []


def test_runs_that_did_not_record_it_were_quiet_as_far_as_anyone_knows() -> None:
    (line,) = contamination(state(others_cpu=0.5), {}, promoted=[({}, {})]).reasons
    assert line == "other processes used 50% of the cores"
    assert contamination(state(other_processes=3), {}, promoted=[({}, {})]).reasons == []


@pytest.mark.parametrize("name", FACTS)
def test_another_machine_is_named_by_what_differs(name: str) -> None:
    now = FACTS | {name: "other"}
    found = contamination(QUIET, now, promoted=[(QUIET, FACTS)] * 3)
    assert found.elsewhere == (f"{name} {FACTS[name]} -> other",)
    assert found.disturbed == ()
    # One promoted run of such a machine is enough, and what is unknown says nothing.
    assert contamination(QUIET, now, promoted=[(QUIET, FACTS), (QUIET, now)]).reasons == []
    assert contamination(QUIET, FACTS | {name: None}, promoted=[(QUIET, FACTS)]).reasons == []
    assert contamination(QUIET, now, promoted=[(QUIET, {name: None}), (QUIET, {})]).reasons == []


@pytest.mark.parametrize(
    ("value", "there", "excused"),
    [
        (1.0, Contamination(), Outcome.PASS),
        (2.0, Contamination(), Outcome.FAIL),
        (1.0, Contamination(disturbed=("load",)), Outcome.PASS),
        (1.05, Contamination(disturbed=("load",)), Outcome.INCONCLUSIVE),
        (2.0, Contamination(disturbed=("load",)), Outcome.INCONCLUSIVE),
        (1.0, Contamination(elsewhere=("CPU A -> B",)), Outcome.INCONCLUSIVE),
        (2.0, Contamination(("load",), ("CPU A -> B",)), Outcome.INCONCLUSIVE),
    ],
)
def test_it_is_never_told_as_a_regression_and_another_machine_is_never_green(
    value: float, there: Contamination, excused: Outcome
) -> None:
    ratio = Estimate(value=value, low=value - 0.01, high=value + 0.01, confidence=0.99, n=3)
    before = not_worse("compare step_s", ratio, 0.05, better="lower", runs=3)
    verdict = there.excuse(before)
    assert verdict.outcome is excused
    assert verdict.figure == before.figure
    if verdict != before:
        assert verdict.reason == f"contaminated: {'; '.join(there.reasons)}"
