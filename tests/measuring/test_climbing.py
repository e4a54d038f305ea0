"""Levers tried in turns, on a simulated card: what helps, what does not, what cannot be pulled."""

import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from perfsuite.devices.cards import Card
from perfsuite.devices.choice import choose_device
from perfsuite.devices.precision import Precision
from perfsuite.devices.simulated import Simulated
from perfsuite.judging.gates import Outcome
from perfsuite.judging.thresholds import load_thresholds
from perfsuite.measuring import climbing, timing
from perfsuite.measuring.bench import Bench
from perfsuite.measuring.climbing import Recipe, fitting_samples, time_limit, try_levers
from perfsuite.measuring.machine import Machine
from perfsuite.measuring.turns import Alone
from perfsuite.records.notes import Notes
from perfsuite.training import levers as training_levers
from perfsuite.training.step import TrainStep
from perfsuite.training.workload import Training, Workload

FP32 = Precision.fp32
SAMPLES = 4


def make(precision: Precision, device: torch.device, seed: int) -> Training:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3, bias=False),
        nn.Flatten(),
        nn.Dropout(),
        nn.Linear(16, 4),
    )
    step = TrainStep(model, torch.optim.Adam(model.parameters(), lr=1e-2), precision=precision)
    noise = torch.Generator().manual_seed(seed)
    images = torch.randn(SAMPLES, 3, 6, 6, generator=noise)
    batches = [(images, torch.arange(SAMPLES) % 4)]
    return Training(step=step, batches=batches, state=[model, step.optimizer, step.scaler])


def simulated(monkeypatch: pytest.MonkeyPatch, **about: Any) -> Simulated:
    """Return the device of all that lies on the CPU, from now on."""
    card: dict[str, Any] = {"flop_per_s": {"fp32": 1e12, "bf16": 2e12}, "bytes_per_s": 1e11}
    device = Simulated(Card(**(card | about)))
    monkeypatch.setattr("perfsuite.devices.choice._simulated", [device])
    return device


@pytest.fixture
def perf(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    device = simulated(monkeypatch, launch_s=2e-5)
    yield Bench(
        Notes("test_ladder.py::test_ladder", markers=()),
        machine=Machine(device=device, hardware=device.hardware(), software={}, precisions=(FP32,)),
        workload=Workload(name="images", make=make, block_steps=1),
        thresholds=load_thresholds(Path("none.toml"), device.hardware().key),
        turns=Alone(lambda *_: None, budget_s=60.0),
    )
    choose_device("cpu")


def climbed(perf: Bench, levers: dict[str, dict[str, Any]], **about: Any) -> list[Any]:
    recipe = Recipe(precision=FP32, **about)
    return try_levers(perf, recipe, levers, foot="foot", samples=SAMPLES, climb=True)


def test_a_rung_that_helps_carries_the_next_and_one_that_does_not_is_taken_off(
    perf: Bench,
) -> None:
    foot, fused, unfused, doubled = climbed(
        perf,
        {
            "fused": {"fused": True},  # one launch in place of hundreds
            "unfused": {"fused": False},
            "batch x2": {"doublings": 1},
        },
    )
    assert (foot.word, fused.word, unfused.word, doubled.word) == ("", "faster", "slower", "faster")
    assert [each.against for each in (fused, unfused, doubled)] == ["foot", "fused", "fused"]
    assert doubled.samples == 2 * SAMPLES
    assert 1 < doubled.gain.value <= 2.01  # in samples, and not in steps
    assert 0 < foot.share_of_ceiling < fused.share_of_ceiling < doubled.share_of_ceiling < 1
    assert doubled.memory_bytes > foot.memory_bytes > 0
    assert foot.bound == "host"
    assert unfused.slower_by[0].startswith("kernels: ")
    outcomes = {v.gate: v.outcome for v in perf.notes.verdicts}
    assert outcomes == {
        "fused": Outcome.NOT_GATED,
        "fused losses": Outcome.PASS,
        "unfused": Outcome.NOT_GATED,
        "unfused losses": Outcome.PASS,
        "batch x2": Outcome.NOT_GATED,
        "batch x2 losses": Outcome.NOT_GATED,
    }
    told, top = perf.notes.pages[-2:]
    assert "slower: 0." in told
    assert re.fullmatch(r"batch x2: \d+% of its step in products, at [\d.]+% of the ceiling", top)
    assert perf.notes.operators is not None


@pytest.mark.parametrize(
    ("about", "against"),
    [({"climb": True, "always": "unfused"}, "unfused"), ({"climb": False}, "foot")],
    ids=["always", "advice"],
)
def test_a_lever_may_stay_though_it_is_slower_and_none_stays_for_advice(
    perf: Bench, about: dict[str, Any], against: str
) -> None:
    levers = {"unfused": {"fused": False}, "loss read": {"reads_loss": True}}
    recipe = Recipe(precision=FP32, fused=True)
    *_, read = try_levers(perf, recipe, levers, foot="foot", samples=SAMPLES, **about)
    assert read.against == against
    assert "loss read losses" not in {each.gate for each in perf.notes.verdicts}  # the same step


def test_what_cannot_be_pulled_is_left_out_and_says_why(perf: Bench) -> None:
    _, cudnn, alike = climbed(
        perf, {"cudnn.benchmark": {"cudnn_benchmark": True}, "alike": {"fused": False}}
    )
    assert str(cudnn) == "cudnn.benchmark: left out: simulated has no cuDNN"
    assert cudnn.gain is None
    assert alike.word == "no change"
    assert "no change: 1.00x [1.00, 1.00]" in str(alike)


def test_where_every_lever_is_left_out_the_step_is_timed_alone(perf: Bench) -> None:
    foot, _ = climbed(perf, {"cudnn.benchmark": {"cudnn_benchmark": True}})
    assert foot.samples_per_s == pytest.approx(SAMPLES / foot.step_s)
    assert perf.notes.times_s


def test_a_rung_that_is_never_ready_is_left_out(
    perf: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    warm_up = timing.warm_up

    def slow_warm_up(arm: Any, *rest: Any, **about: Any) -> Any:
        if arm.label == "slow":
            time.sleep(60)
        return warm_up(arm, *rest, **about)

    monkeypatch.setattr(climbing, "warm_up", slow_warm_up)
    monkeypatch.setattr(climbing, "READY_S", 3.0)
    before = signal.getsignal(signal.SIGALRM)
    _, slow, fused = climbed(perf, {"slow": {"doublings": 1}, "fused": {"fused": True}})
    assert slow.left_out == "it was not ready after 3 s"
    assert fused.against == "foot"
    assert signal.getsignal(signal.SIGALRM) == before


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


@pytest.mark.parametrize("planted", [False, True])
def test_a_lever_that_changes_what_is_computed_is_red(
    perf: Bench, monkeypatch: pytest.MonkeyPatch, planted: bool
) -> None:
    put = training_levers._put_channels_last

    def put_wrongly(models: list[nn.Module]) -> None:
        put(models)
        for parameter in models[0].parameters():
            parameter.data.mul_(1.5)

    if planted:
        monkeypatch.setattr(training_levers, "_put_channels_last", put_wrongly)
    climbed(perf, {"channels_last": {"channels_last": True}})
    (verdict,) = [each for each in perf.notes.verdicts if each.gate == "channels_last losses"]
    assert verdict.outcome is (Outcome.FAIL if planted else Outcome.PASS)


def test_a_batch_is_halved_until_a_step_is_short_enough(perf: Bench) -> None:
    recipe = Recipe(precision=FP32)
    assert fitting_samples(perf, recipe) == SAMPLES
    assert fitting_samples(perf, recipe, most_s=0.0) == 2
