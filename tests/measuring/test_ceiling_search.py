"""Ceilings of a device, and the share of one that a step reaches, on a simulated card."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from perfsuite.devices.cards import Card
from perfsuite.devices.precision import Precision
from perfsuite.devices.ranks import Ranks
from perfsuite.devices.simulated import Simulated
from perfsuite.devices.torchrun import Seat
from perfsuite.judging.ceilings import Ceilings
from perfsuite.judging.gates import Outcome
from perfsuite.judging.thresholds import load_thresholds
from perfsuite.measuring import ceiling_search
from perfsuite.measuring.bench import Bench
from perfsuite.measuring.ceiling_search import ceilings_of, measure_ceilings
from perfsuite.measuring.identity import identity_of
from perfsuite.measuring.machine import Machine
from perfsuite.measuring.turns import Alone
from perfsuite.records.notes import Notes
from perfsuite.training.arm import Arm
from perfsuite.training.workload import Training, Workload

RATES = {"fp32": 1e9, "bf16": 4e9}
SAMPLES, WIDTH = 64, 32
STEP_FLOPS = 4.0 * SAMPLES * WIDTH * WIDTH  # forward, and the weights' gradient


@pytest.fixture(autouse=True)
def small_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceiling_search, "PRODUCT_SIZES", (64, 96))
    monkeypatch.setattr(ceiling_search, "CHANNELS", (4, 6))
    monkeypatch.setattr(ceiling_search, "COPIED_BYTES", 2**26)


def simulated(**about: Any) -> Simulated:
    card: dict[str, Any] = {"launch_s": 1e-6, "flop_per_s": RATES, "bytes_per_s": 1e12}
    return Simulated(Card(**(card | about)))


def make(precision: Precision, device: torch.device, seed: int) -> Training:
    model = nn.Linear(WIDTH, WIDTH, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)

    def step(batch: torch.Tensor) -> torch.Tensor:
        optimizer.zero_grad()
        loss: torch.Tensor = model(batch).sum()
        loss.backward()
        return loss

    return Training(step=step, batches=[torch.ones(SAMPLES, WIDTH)], state=[model, optimizer])


def bench_on(device: Simulated) -> Bench:
    return Bench(
        Notes("test_a.py::test_a", markers=()),
        machine=Machine(
            device=device,
            hardware=device.hardware(),
            software={},
            precisions=(Precision.fp32, Precision.bf16),
        ),
        workload=Workload(name="mine", make=make),
        thresholds=load_thresholds(Path("none.toml"), device.hardware().key),
        turns=Alone(lambda *_: None, budget_s=1.0),
    )


def told(device: Simulated, step_s: float) -> tuple[Bench, str]:
    perf = bench_on(device)
    perf.throughput(perf.fresh(Precision.fp32), step_s)
    return perf, "\n".join(perf.notes.pages)


def test_what_is_measured_is_what_the_card_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Simulated, "precisions", (Precision.fp32, Precision.bf16))
    found = measure_ceilings(simulated(), budget_s=0.01)
    assert found.products == pytest.approx(RATES, rel=0.02)
    assert found.convolutions == pytest.approx(RATES, rel=0.02)
    # A copy's target counts as given and as made, where it is charged.
    assert found.bytes_per_s == pytest.approx(1e12 * 2 / 3, rel=0.02)
    assert found.launch_s == pytest.approx(1e-6, rel=0.01)
    assert found.unmeasured == {}


def test_what_cannot_be_measured_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("no such kernel\nsecond line")

    monkeypatch.setattr(torch, "mm", refuse)
    monkeypatch.setattr(Simulated, "precisions", (Precision.fp32,))
    found = measure_ceilings(simulated(), budget_s=0.01)
    assert found.unmeasured == {"fp32 product": "no such kernel"}
    assert set(found.convolutions) == {"fp32"}


def test_the_ceiling_of_a_simulated_card_is_the_cards() -> None:
    device = simulated(flop_scale=8, bytes_scale=2)
    found = ceilings_of(device)
    assert found is device.ceilings
    assert found.products["bf16"] == RATES["bf16"] / 8  # of what the CPU computes for it
    assert Simulated().ceilings == Ceilings()


def test_a_step_time_is_told_with_its_share() -> None:
    perf, text = told(simulated(), 4 * STEP_FLOPS / RATES["fp32"])
    assert text.endswith("TFLOP/s, 25.0% of this device's ceiling")
    raw = perf.record().raw
    assert raw["throughput"]["share of ceiling"] == pytest.approx(0.25)
    assert raw["ceilings"]["products"]["fp32"] == RATES["fp32"]
    assert not perf.notes.verdicts


def test_a_rate_is_of_all_ranks_together_and_a_share_of_one_device(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, alone = told(simulated(), 4 * STEP_FLOPS / RATES["fp32"])
    monkeypatch.setattr(ceiling_search, "ranks", lambda: Ranks(Seat(ranks=8)))
    perf, text = told(simulated(), 4 * STEP_FLOPS / RATES["fp32"])
    assert text.endswith("TFLOP/s of 8 ranks together, 25.0% of this device's ceiling")
    assert "together" not in alone
    rates, step_s = perf.record().raw["throughput"], 4 * STEP_FLOPS / RATES["fp32"]
    assert rates["samples/s"] == pytest.approx(8 * SAMPLES / step_s)
    assert rates["TFLOP/s"] == pytest.approx(8 * STEP_FLOPS / step_s / 1e12)
    assert rates["share of ceiling"] == pytest.approx(0.25)


def test_a_share_above_all_that_the_device_does_fails_and_is_not_printed() -> None:
    perf, text = told(simulated(), 0.5 * STEP_FLOPS / RATES["fp32"])
    (verdict,) = perf.notes.verdicts
    assert verdict.outcome is Outcome.FAIL
    assert "its FLOPs are wrong" in verdict.reason
    assert "ceiling" not in text
    assert "share of ceiling" not in perf.record().raw["throughput"]


def test_a_ceiling_that_is_not_known_fails_and_one_that_nobody_has_does_not() -> None:
    blind = simulated()
    blind.ceilings = Ceilings(unmeasured={"fp32 convolution": "no memory"})
    perf, text = told(blind, 1.0)
    assert "no ceiling: fp32 convolution: no memory" in perf.notes.verdicts[0].reason
    perf, text = told(Simulated(), 1.0)  # a card without rates
    assert not perf.notes.verdicts
    assert "ceiling" not in text


def test_a_ceiling_found_too_low_beside_a_busy_neighbour_is_measured_again() -> None:
    device = simulated()
    device.ceilings = Ceilings(products={"fp32": RATES["fp32"] / 1e3})
    ceilings_of(device)
    device.ceilings = Ceilings(products=RATES)
    perf, text = told(device, 2 * STEP_FLOPS / RATES["fp32"])
    assert text.endswith("50.0% of this device's ceiling")
    assert not perf.notes.verdicts


@pytest.mark.parametrize("reentrant", [None, False, True])
def test_what_a_checkpoint_computes_anew_is_not_counted(reentrant: bool | None) -> None:
    layers = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU())

    def step(batch: torch.Tensor) -> torch.Tensor:
        inputs = batch.clone().requires_grad_()
        if reentrant is None:
            loss: torch.Tensor = layers(inputs).sum()
        else:
            loss = checkpoint(layers, inputs, use_reentrant=reentrant).sum()
        loss.backward()
        return loss

    def batches() -> Iterator[torch.Tensor]:
        while True:
            yield torch.ones(4, 8)

    arm = Arm(step=step, batches=batches(), device=torch.device("cpu"))
    assert identity_of(arm)["flops"] == 2 * 3 * 2 * 4 * 8 * 8
