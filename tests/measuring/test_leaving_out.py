"""What leaves a lever out, and what is said of it."""

import gc
import signal
import weakref
from dataclasses import replace
from typing import Any

import pytest
import torch
from climbs import SAMPLES, bench_on, climbed, make, simulated

from perfsuite.devices.cpu import Cpu
from perfsuite.judging.gains import LeverTried
from perfsuite.judging.gates import Outcome
from perfsuite.measuring import climbing, timing
from perfsuite.measuring.bench import Bench
from perfsuite.measuring.leaving_out import leaving_out, time_limit
from perfsuite.training.workload import Training


@pytest.fixture
def perf(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return bench_on(simulated(monkeypatch, launch_s=2e-5))


class WrappedError(RuntimeError):
    """Says what a compiler says of what its parts have raised."""

    def __init__(self, inner: Exception) -> None:
        super().__init__(f"backend='inductor' raised:\n{inner}")
        self.inner_exception = inner


def throw(error: Exception, cause: Exception | None = None) -> None:
    raise error from cause


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("no such form\nand more"), "no such form"),
        (ValueError(), "ValueError"),
        (WrappedError(WrappedError(TimeoutError("it was not ready"))), "it was not ready"),
        (MemoryError(), "not enough memory: MemoryError"),
        (WrappedError(MemoryError("full")), "not enough memory: full"),
    ],
    ids=repr,
)
def test_the_reason_is_the_first_line_of_what_was_raised_within(
    error: Exception, told: str
) -> None:
    tried = LeverTried(name="lever")
    with leaving_out(tried, Cpu(), ValueError, RuntimeError):
        throw(error)
    assert tried.left_out == told


def test_an_error_that_was_caused_by_missing_memory_tells_of_that() -> None:
    tried = LeverTried(name="graph")
    with leaving_out(tried, Cpu()):
        throw(ValueError("it cannot be captured"), MemoryError("full"))
    assert tried.left_out == "not enough memory: it cannot be captured"


def test_what_a_time_limit_interrupted_tells_of_that() -> None:
    tried = LeverTried(name="torch.compile")
    with leaving_out(tried, Cpu(), RuntimeError):
        throw(RuntimeError("RuntimeError when making fake tensor call"), TimeoutError("too late"))
    assert tried.left_out == "too late"


def test_what_is_no_reason_is_an_error() -> None:
    tried = LeverTried(name="lever")
    with pytest.raises(ValueError, match="wrong"), leaving_out(tried, Cpu()):
        throw(ValueError("wrong"))
    assert tried.left_out == ""


def test_a_time_limit_leaves_the_timer_of_others_running() -> None:
    before = signal.setitimer(signal.ITIMER_REAL, 500.0, 7.0)
    try:
        with time_limit(1000.0):
            assert signal.getitimer(signal.ITIMER_REAL)[0] > 500.0
        left_s, interval_s = signal.getitimer(signal.ITIMER_REAL)
        assert 0.0 < left_s <= 500.0
        assert interval_s == 7.0
    finally:
        signal.setitimer(signal.ITIMER_REAL, *before)


def test_a_rung_that_is_never_ready_is_left_out(
    perf: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    warm_up = timing.warm_up

    def slow_warm_up(arm: Any, *rest: Any, **about: Any) -> Any:
        if arm.label == "slow":
            signal.raise_signal(signal.SIGALRM)  # as if the time were over
        return warm_up(arm, *rest, **about)

    monkeypatch.setattr(climbing, "warm_up", slow_warm_up)
    before = signal.getsignal(signal.SIGALRM)
    _, slow, fused = climbed(perf, {"slow": {"doublings": 1}, "fused": {"fused": True}})
    assert slow.left_out == f"it was not ready after {climbing.READY_S:g} s"
    assert fused.against == "foot"
    assert signal.getsignal(signal.SIGALRM) == before


def test_a_lever_without_room_is_left_out_and_the_others_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    perf = bench_on(simulated(monkeypatch, launch_s=2e-5, memory_bytes=2**20))
    _, large, fused = climbed(perf, {"large": {"doublings": 10}, "fused": {"fused": True}})
    assert large.left_out.startswith("not enough memory: tried to allocate")
    assert (fused.word, fused.against) == ("faster", "foot")
    assert "levers" not in {each.gate for each in perf.notes.verdicts}


@pytest.mark.parametrize("where", ["few_steps", "measure_memory", "make_ready", "duet", "tell"])
def test_memory_may_run_out_at_any_time_and_is_red_where_it_left_out_all(
    perf: Bench, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def run_out(of: Any, *rest: Any, **about: Any) -> Any:
        if "large" in (getattr(of, "name", ""), *(getattr(each, "label", "") for each in rest)):
            raise torch.OutOfMemoryError("full")
        return as_it_is(of, *rest, **about)

    owner: Any = Bench if where == "duet" else climbing._Rung
    as_it_is: Any = getattr(owner, where)
    if where == "few_steps":
        as_it_is = owner.few_steps.func
        monkeypatch.setattr(owner, where, property(run_out))
    else:
        monkeypatch.setattr(owner, where, run_out)
    foot, large = climbed(perf, {"large": {"doublings": 1}})
    assert large.left_out == "not enough memory: full"
    assert str(large) == "large: left out: not enough memory: full"
    assert foot.samples_per_s > 0
    (verdict,) = [each for each in perf.notes.verdicts if each.gate == "levers"]
    assert verdict.outcome is Outcome.FAIL


def test_there_is_room_for_two_trainings_and_no_more(perf: Bench) -> None:
    made: list[Any] = []
    together: list[int] = []

    def watched(*about: Any) -> Training:
        training = make(*about)
        made.append(weakref.ref(training.state[0]))
        gc.collect()
        together.append(sum(each() is not None for each in made))
        return training

    perf.workload = replace(perf.workload, make=watched)
    climbed(perf, {"fused": {"fused": True}, "no": {"fused": False}, "batch x2": {"doublings": 1}})
    assert max(together) == 2


def test_a_batch_whose_samples_are_not_doubled_is_left_out(perf: Bench) -> None:
    def sequences(*about: Any) -> Training:
        made = make(*about)
        images, labels = made.batches[0]  # type: ignore[index]  # a list
        written = made.step
        made.batches = [images.transpose(0, 1)]
        made.step = lambda batch: written((batch.transpose(0, 1)[:SAMPLES, :3], labels))
        made.samples = lambda batch: batch.shape[1]
        return made

    perf.workload = replace(perf.workload, make=sequences)
    _, doubled = climbed(perf, {"batch x2": {"doublings": 1}})
    assert doubled.left_out.startswith("a batch has 4 samples, and was to have 8: the first dim")
