"""Ceilings of a device, and the share of one that a step reaches, on a simulated card."""

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from perfsuite.devices.cards import Card, Spell
from perfsuite.devices.precision import Precision
from perfsuite.devices.ranks import Ranks
from perfsuite.devices.simulated import Simulated
from perfsuite.devices.torchrun import Seat
from perfsuite.judging.blocks import State
from perfsuite.judging.ceilings import Ceilings
from perfsuite.judging.gates import Outcome
from perfsuite.judging.thresholds import load_thresholds
from perfsuite.measuring import ceiling_search
from perfsuite.measuring.bench import Bench
from perfsuite.measuring.ceiling_search import ceilings_of, measure_ceilings
from perfsuite.measuring.machine import Machine
from perfsuite.measuring.turns import Alone
from perfsuite.records.notes import Notes
from perfsuite.training.workload import Training, Workload

RATES = {"fp32": 1e9, "bf16": 4e9}
SAMPLES, WIDTH = 64, 32
STEP_FLOPS = 4.0 * SAMPLES * WIDTH * WIDTH  # forward, and the weights' gradient


@pytest.fixture(autouse=True)
def small_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceiling_search, "PRODUCT_SIZES", (64, 96))
    monkeypatch.setattr(ceiling_search, "CHANNELS", (4, 6))
    monkeypatch.setattr(ceiling_search, "COPIED_BYTES", 2**22)
    monkeypatch.setattr(ceiling_search, "BLOCK_S", 4e-3)


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


def test_what_comes_before_a_block_leaves_it_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the loading of libraries, and the making of random numbers, by the host's clock."""
    now_s, tried = [0.0], []
    randn = torch.randn

    def slow_randn(*shape: Any, **about: Any) -> torch.Tensor:
        now_s[0] += 10.0
        tried.append(shape)
        return randn(*shape, **about)

    monkeypatch.setattr(torch, "randn", slow_randn)
    monkeypatch.setattr(time, "monotonic", lambda: now_s[0])
    monkeypatch.setattr(Simulated, "precisions", (Precision.fp32,))
    measure_ceilings(simulated(), budget_s=0.03)
    assert {(64, 64), (96, 96)} <= set(tried)


def test_a_rate_is_one_that_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not that of the first 20 of each 50 ms, after which the card halves its clock."""
    monkeypatch.setattr(ceiling_search, "BLOCK_S", 0.05)
    monkeypatch.setattr(Simulated, "precisions", (Precision.fp32,))
    card = simulated(held_back=(Spell(start_s=0.02, end_s=0.05, speed=0.5, every_s=0.05),))
    found = measure_ceilings(card, budget_s=0.2)
    assert found.products["fp32"] < 0.8 * RATES["fp32"]
    assert found.convolutions["fp32"] < 0.8 * RATES["fp32"]


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


@pytest.mark.parametrize(
    ("others_cpu", "outcome"), [(0.5, Outcome.INCONCLUSIVE), (0.02, Outcome.FAIL)]
)
def test_a_share_above_all_is_no_error_of_the_code_beside_other_work(
    others_cpu: float, outcome: Outcome
) -> None:
    perf, _ = told(simulated(), 1e-9)
    record = perf.notes.record(State(), State(others_cpu=others_cpu))
    (share,) = [each for each in record.verdicts if each.gate == "share_of_ceiling"]
    assert share.outcome is outcome


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch without oneDNN")
def test_why_there_is_no_share_is_told() -> None:
    perf = bench_on(simulated())

    def recurrent(precision: Precision, device: torch.device, seed: int) -> Training:
        layer = nn.LSTM(4, 6)

        def step(batch: torch.Tensor) -> torch.Tensor:
            loss: torch.Tensor = layer(batch)[0].sum()
            return loss

        return Training(step=step, batches=[torch.ones(5, 2, 4)], state=[layer])

    perf.workload = Workload(name="mine", make=recurrent)
    perf.throughput(perf.fresh(Precision.fp32), 1.0)
    assert (
        "no share of a ceiling, since nobody knows the FLOPs of mkldnn_rnn_layer"
        in (perf.notes.pages[-1])
    )
