"""The largest batch, on a simulated device with a memory of its own: the truth can be counted."""

import gc
import weakref
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from fakes import FakeTime
from torch import nn

from perfsuite.benchmarks.largest_batch import test_largest_batch as benchmark
from perfsuite.devices.cards import Card
from perfsuite.devices.cpu import Cpu
from perfsuite.devices.cuda import Cuda
from perfsuite.devices.precision import Precision
from perfsuite.devices.simulated import Simulated
from perfsuite.judging.fitting import Attempt, Tried
from perfsuite.judging.gates import Outcome
from perfsuite.judging.thresholds import MemoryLimits
from perfsuite.measuring.batch_tries import TIMES, largest_batches, try_batch
from perfsuite.measuring.bench import Bench
from perfsuite.measuring.machine import Machine
from perfsuite.measuring.turns import Alone
from perfsuite.records.notes import Notes
from perfsuite.training.batches import TrainingError
from perfsuite.training.step import TrainStep
from perfsuite.training.workload import Training, Workload

FP32, BF16 = Precision.fp32, Precision.bf16
CPU = torch.device("cpu")
OWN, WIDTH = 4, 16
CARD = Card(flop_per_s={"fp32": 1e12, "bf16": 1e12}, memory_bytes=2**30)


def make(precision: Precision, device: torch.device, seed: int, *, casts: bool = True) -> Training:
    """Return a training whose activations are most of its memory."""
    layers = [nn.Conv2d(1 if at == 0 else 4, 4, 3, padding=1) for at in range(6)]
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(4 * WIDTH * WIDTH, 2))
    arithmetic = precision if casts else FP32
    step = TrainStep(model, torch.optim.SGD(model.parameters(), lr=0.01), precision=arithmetic)
    batch = torch.rand(OWN, 1, WIDTH, WIDTH), torch.zeros(OWN, dtype=torch.int64)
    return Training(step=step, batches=[batch], state=[model, step.optimizer])


def bench(device: Simulated, *, casts: bool = True, minimum: float | None = None) -> Bench:
    where = Machine(device=device, hardware=device.hardware(), software={}, precisions=(FP32, BF16))
    limits = SimpleNamespace(memory=MemoryLimits(min_largest_batch=minimum))
    return Bench(
        Notes("test_largest_batch", markers=()),
        machine=where,
        workload=Workload(name="small", make=partial(make, casts=casts)),
        thresholds=cast("Any", limits),
        turns=Alone(lambda *_: None, budget_s=0.0),
    )


def fresh(attempt: Attempt, *, casts: bool = True) -> Tried:
    """Try a batch on a device that nothing was done on: what a fresh process is."""
    return try_batch(bench(Simulated(CARD), casts=casts), attempt)


def found(fits: Callable[[Attempt], Tried], **about: Any) -> tuple[Bench, Any]:
    perf = bench(Simulated(CARD), **about)
    benchmark(perf, fits, BF16)
    (verdict,) = perf.notes.verdicts
    return perf, verdict


def test_a_peak_grows_with_the_batch_and_a_limit_below_it_is_told() -> None:
    peaks = []
    for samples in (OWN, 2 * OWN, 4 * OWN):
        free = fresh(Attempt(precision="fp32", samples=samples, limit_bytes=None))
        assert free.peak_bytes is not None
        peaks.append(free.peak_bytes)
        exactly = Attempt(precision="fp32", samples=samples, limit_bytes=free.peak_bytes)
        assert fresh(exactly) == free
        tried = fresh(Attempt(precision="fp32", samples=samples, limit_bytes=free.peak_bytes - 1))
        assert not tried.fits
        assert "tried to allocate" in tried.why_not
    # What does not grow with the batch, such as gradients, counts once.
    assert peaks[0] < peaks[1] < 2 * peaks[0]
    assert peaks[2] - peaks[1] == pytest.approx(2 * (peaks[1] - peaks[0]), rel=0.1)


def test_both_precisions_are_held_to_one_limit_which_a_promoted_run_decides() -> None:
    perf, _ = found(fresh)
    record = perf.record()
    free = fresh(Attempt(precision="fp32", samples=TIMES * OWN, limit_bytes=None))
    limit_bytes = record.config["limit_bytes"]
    assert free.peak_bytes is not None
    assert free.peak_bytes <= limit_bytes < 2 * free.peak_bytes
    assert limit_bytes.bit_count() == 1  # so that a peak that differs a little makes no other
    kept = record.raw["largest_batches"]
    fp32, bf16 = (kept[precision]["samples"] for precision in ("fp32", "bf16"))
    assert TIMES * OWN <= fp32 < 2 * TIMES * OWN + OWN
    assert 1.2 * fp32 < bf16 < 2 * fp32
    for each in kept.values():
        peaks = [tried["peak_bytes"] for tried in each["tries"] if tried["peak_bytes"]]
        assert max(peaks) <= limit_bytes
    assert f"largest{fp32:>14}" in perf.notes.pages[-1]
    assert "too large" in perf.notes.pages[-1]

    again = bench(Simulated(CARD))
    again.promoted = {"limit_bytes": limit_bytes // 2}
    benchmark(again, fresh, BF16)
    assert again.record().config["limit_bytes"] == limit_bytes // 2
    assert again.record().raw["largest_batches"]["fp32"]["samples"] < fp32


@pytest.mark.parametrize(
    ("casts", "minimum", "outcome"),
    [
        (True, 1.2, Outcome.PASS),
        (False, 1.2, Outcome.FAIL),  # autocast was left out: it takes as much as fp32
        (True, None, Outcome.NOT_GATED),
    ],
)
def test_the_gate_is_red_where_nothing_is_gained(
    casts: bool, minimum: float | None, outcome: Outcome
) -> None:
    _, verdict = found(partial(fresh, casts=casts), casts=casts, minimum=minimum)
    assert (verdict.gate, verdict.outcome) == ("largest_batch", outcome)


def test_what_was_killed_did_not_fit_and_no_room_at_all_is_an_error() -> None:
    def killed(attempt: Attempt) -> Tried:
        if attempt.limit_bytes is None or attempt.precision == "fp32":
            return Tried(peak_bytes=100)
        return Tried(peak_bytes=None, why_not="ended with SIGKILL")

    perf = bench(Simulated(CARD), minimum=1.2)
    benchmark(perf, killed, BF16)
    assert [verdict.outcome for verdict in perf.notes.verdicts] == [Outcome.FAIL]
    assert perf.notes.verdicts[0].figure == "0.000x"

    def nothing(attempt: Attempt) -> Tried:
        return Tried(peak_bytes=None, why_not="ended with SIGKILL")

    with pytest.raises(TrainingError, match="a batch of 32 in fp32 has no room: ended with"):
        largest_batches(bench(Simulated(CARD)), nothing, [FP32])


def test_what_fails_for_another_reason_is_raised() -> None:
    def broken(*_: Any) -> Training:
        raise ValueError("no such layer")

    perf = bench(Simulated(CARD))
    perf.workload = Workload(name="broken", make=broken)
    with pytest.raises(ValueError, match="no such layer"):
        try_batch(perf, Attempt(precision="fp32", samples=1, limit_bytes=None))


def test_an_accelerators_limit_is_its_memory() -> None:
    device = FakeTime()
    device.computes_on_host = False  # type: ignore[misc]  # of this one
    asked: list[Attempt] = []

    def fits(attempt: Attempt) -> Tried:
        asked.append(attempt)
        return Tried(peak_bytes=1, why_not="" if attempt.samples <= 100 else "too much")

    (batches,) = largest_batches(bench(device), fits, [FP32]).values()
    assert batches.samples in (99, 100)
    assert {attempt.limit_bytes for attempt in asked} == {device.card.memory_bytes}


def test_the_session_keeps_no_memory_of_its_own_while_others_are_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    device, made, freed = FakeTime(), weakref.WeakSet[Any](), list[int]()

    def noted(*about: Any) -> Training:
        training = make(*about)
        made.update(training.state[:1])
        return training

    def fits(_: Attempt) -> Tried:
        assert freed
        return Tried(peak_bytes=1)

    def free_cache() -> None:
        gc.collect()
        freed.append(len(made))

    monkeypatch.setattr(device, "free_cache", free_cache)
    perf = bench(device)
    perf.workload = Workload(name="noted", make=noted)
    largest_batches(perf, fits, [FP32])
    assert freed == [0]


def test_what_a_gpu_keeps_of_others_is_in_no_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gpu(Cuda):
        def __init__(self) -> None:
            self.place = CPU

    kept = {"in_use": 3, "cached": 5}
    monkeypatch.setattr(torch.accelerator, "empty_cache", lambda: kept.update(cached=0))
    for name in ("memory_reserved", "max_memory_reserved"):
        monkeypatch.setattr(torch.cuda, name, lambda _: sum(kept.values()))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda _: None)
    peak_bytes = Gpu().confine(None)
    kept["in_use"] += 4
    assert peak_bytes() == 4
    assert kept["cached"] == 0


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (MemoryError(), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to ..."), True),
        (RuntimeError("could not create a primitive"), True),
        (RuntimeError("could not create a memory object"), True),
        (RuntimeError("could not create a primitive descriptor for the matmul primitive"), False),
        (RuntimeError("could not create a memory descriptor from blob"), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("can't be"), False),
    ],
)
def test_how_a_cpu_says_that_memory_ran_out(error: Exception, told: bool) -> None:
    assert Cpu().ran_out(error) is told


@pytest.mark.slow
def test_a_real_process_is_confined_and_the_session_is_not(pytester: pytest.Pytester) -> None:
    """Three processes of a server: one that fits, one that does not, one that a signal ends."""
    pytester.makepyfile(
        conftest="""
        import os, signal
        import torch
        import perfsuite

        @perfsuite.workload(name="own")
        def training(precision, device, seed):
            def step(batch):
                if len(batch) == 3:
                    os.kill(os.getpid(), signal.SIGKILL)
                return torch.ones(len(batch), 2**22).sum()  # 16 MiB a sample
            return perfsuite.Training(step=step, batches=[torch.ones(2, 1)], state=[])
        """,
        test_fits="""
        from perfsuite.judging.fitting import Attempt

        def test_fits(perf, perf_fits):
            with open("begun", "a") as file:
                file.write("once")
            tried = {
                n: perf_fits(Attempt(precision="fp32", samples=n, limit_bytes=2**28))
                for n in (2, 3, 1000)
            }
            perf.timed([1.0])
            assert open("begun").read() == "once"  # no try makes anything else
            assert tried[2].fits and tried[2].peak_bytes >= 2**25
            assert "SIGKILL" in tried[3].why_not
            assert "allocate memory" in tried[1000].why_not
            import resource
            assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY
        """,
    )
    pytester.makefile(".toml", thresholds="")
    result = pytester.runpytest_subprocess("--perf-device=cpu", "-pno:cacheprovider", "-pno:xdist")
    assert result.ret == 0, result.stdout.str()
    result.stdout.fnmatch_lines(["*1 passed*"])
