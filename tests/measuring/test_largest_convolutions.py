"""The largest convolutions of a ladder's top rung, on a simulated card."""

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
from perfsuite.judging.ceilings import Ceilings
from perfsuite.judging.estimates import Estimate
from perfsuite.judging.gains import LeverTried
from perfsuite.judging.thresholds import load_thresholds
from perfsuite.measuring import ceiling_search, largest_convolutions
from perfsuite.measuring.bench import Bench
from perfsuite.measuring.climbing import Recipe
from perfsuite.measuring.machine import Machine
from perfsuite.measuring.turns import Alone
from perfsuite.records.notes import Notes
from perfsuite.training.step import TrainStep
from perfsuite.training.workload import Training, Workload

FP32, BF16 = Precision.fp32, Precision.bf16
RATES = {"fp32": 1e9, "bf16": 2e9}
SAMPLES = 4
LEVERS: dict[str, dict[str, Any]] = {
    "mixed precision": {"precision": BF16},
    "channels_last": {"channels_last": True},
    "torch.compile": {"compile": True},
    "batch x2": {"doublings": 1},
}


def make(precision: Precision, device: torch.device, seed: int) -> Training:
    model = nn.Sequential(
        nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Flatten(), nn.Linear(16, 4)
    )
    step = TrainStep(model, torch.optim.SGD(model.parameters(), lr=0.1), precision=precision)
    batches = [(torch.ones(SAMPLES, 4, 6, 6), torch.arange(SAMPLES) % 4)]
    return Training(step=step, batches=batches, state=[model, step.optimizer, step.scaler])


@pytest.fixture
def perf(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    device = Simulated(Card(flop_per_s=RATES, bytes_per_s=1e9, launch_s=1e-6))
    monkeypatch.setattr("perfsuite.devices.choice._simulated", [device])
    monkeypatch.setattr(ceiling_search, "BLOCK_S", 4e-3)
    monkeypatch.setattr(largest_convolutions, "BUDGET_S", 0.02)
    yield Bench(
        Notes("test_ladder.py::test_ladder", markers=()),
        machine=Machine(device=device, hardware=device.hardware(), software={}, precisions=(FP32,)),
        workload=Workload(name="images", make=make, block_steps=1),
        thresholds=load_thresholds(Path("none.toml"), device.hardware().key),
        turns=Alone(lambda *_: None, budget_s=60.0),
    )
    choose_device("cpu")


def rung(name: str, gain: float) -> LeverTried:
    estimate = Estimate(value=gain, low=0.9 * gain, high=1.1 * gain, confidence=0.99, n=9)
    return LeverTried(name=name, samples_per_s=1.0, gain=estimate)


def test_the_largest_are_those_of_the_top_rung(perf: Bench) -> None:
    tried = [
        LeverTried(name="foot", samples_per_s=1.0),
        rung("mixed precision", 0.5),  # which stays though it is slower
        rung("channels_last", 0.5),  # which does not
        LeverTried(name="torch.compile", left_out="it was not ready"),
        rung("batch x2", 1.5),
    ]
    forward, backward = largest_convolutions.largest_convolutions(
        perf, Recipe(precision=FP32), LEVERS, tried, samples=SAMPLES
    )
    # Of the first layer, which has 4 x 4 places, where the second has 2 x 2.
    images, weights, made = [2 * SAMPLES, 4, 6, 6], [8, 4, 3, 3], [2 * SAMPLES, 8, 4, 4]
    assert (forward.operator, backward.operator) == ("convolution", "convolution_backward")
    assert forward.shapes == [images, weights]
    assert backward.shapes == [made, images, weights]
    for each in (forward, backward):
        assert each.share_of_ceiling == pytest.approx(each.flop_per_s / RATES["bf16"])
        assert 0.1 < each.flop_per_s / RATES["bf16"] <= 1
    assert not perf.notes.verdicts


@pytest.mark.parametrize("rate", [529789032299.346, 533741665888.8628, 1e9 / 3])
def test_one_above_the_ceiling_is_the_ceiling_for_all_rungs_of_its_precision(
    perf: Bench, monkeypatch: pytest.MonkeyPatch, rate: float
) -> None:
    monkeypatch.setattr(largest_convolutions, "_alone", lambda *_: rate)
    low = Ceilings(products={"fp32": 1e9, "bf16": 1e7})
    ceiling_search._found[perf.machine.device] = low
    tried = [
        LeverTried(name="foot", samples_per_s=1.0, precision="fp32", share_of_ceiling=0.5),
        rung("mixed precision", 1.5),
    ]
    tried[1].precision, tried[1].share_of_ceiling = "bf16", 0.5
    forward, backward = largest_convolutions.largest_convolutions(
        perf, Recipe(precision=FP32), LEVERS, tried, samples=SAMPLES
    )
    assert forward.share_of_ceiling == backward.share_of_ceiling == 1
    assert tried[1].share_of_ceiling == pytest.approx(0.5 * 1e7 / rate)
    assert tried[0].share_of_ceiling == 0.5
    assert not perf.notes.verdicts
    assert "times the ceiling in bf16 so far" in perf.notes.pages[-1]


def test_a_step_without_convolutions_has_none(perf: Bench) -> None:
    def flat(precision: Precision, device: torch.device, seed: int) -> Training:
        model = nn.Sequential(nn.Flatten(), nn.Linear(144, 4))
        step = TrainStep(model, torch.optim.SGD(model.parameters(), lr=0.1), precision=precision)
        batches = [(torch.ones(SAMPLES, 4, 6, 6), torch.arange(SAMPLES) % 4)]
        return Training(step=step, batches=batches, state=[model, step.optimizer])

    perf.workload = Workload(name="flat", make=flat, block_steps=1)
    foot = [LeverTried(name="foot", samples_per_s=1.0)]
    assert not largest_convolutions.largest_convolutions(
        perf, Recipe(precision=FP32), LEVERS, foot, samples=SAMPLES
    )
