"""Ladders on a simulated card, for tests of what becomes of their rungs."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from perfsuite.devices.cards import Card
from perfsuite.devices.precision import Precision
from perfsuite.devices.simulated import Simulated
from perfsuite.judging.thresholds import load_thresholds
from perfsuite.measuring.bench import Bench
from perfsuite.measuring.climbing import Recipe, try_levers
from perfsuite.measuring.machine import Machine
from perfsuite.measuring.turns import Alone
from perfsuite.records.notes import Notes
from perfsuite.training.step import TrainStep
from perfsuite.training.workload import Training, Workload

FP32 = Precision.fp32
SAMPLES = 4


def make(
    precision: Precision, device: torch.device, seed: int, rate: float = 1e-2, *drop: nn.Module
) -> Training:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3, bias=False),
        nn.Flatten(),
        nn.Dropout(),
        *drop,
        nn.Linear(16, 4),
    )
    step = TrainStep(model, torch.optim.Adam(model.parameters(), lr=rate), precision=precision)
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


def bench_on(device: Simulated, budget_s: float = 60.0) -> Bench:
    return Bench(
        Notes("test_ladder.py::test_ladder", markers=()),
        machine=Machine(device=device, hardware=device.hardware(), software={}, precisions=(FP32,)),
        workload=Workload(name="images", make=make, block_steps=1),
        thresholds=load_thresholds(Path("none.toml"), device.hardware().key),
        turns=Alone(lambda *_: None, budget_s=budget_s, now=device.time_s),
    )


def climbed(perf: Bench, levers: dict[str, dict[str, Any]], **about: Any) -> list[Any]:
    recipe = Recipe(precision=FP32, **about)
    return try_levers(perf, recipe, levers, foot="foot", samples=SAMPLES, climb=True)
