"""Each rung of a ladder is shown to leave the training what it is, by a few steps."""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from climbs import bench_on, climbed, make, simulated
from torch import nn

from perfsuite.devices.precision import Precision
from perfsuite.judging.gates import Outcome
from perfsuite.measuring.bench import Bench
from perfsuite.training import levers as training_levers
from perfsuite.training.arm import Arm
from perfsuite.training.workload import Training


@pytest.fixture
def perf(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return bench_on(simulated(monkeypatch, launch_s=2e-5))


@pytest.mark.parametrize("planted", [False, True])
def test_an_optimizer_that_takes_no_step_is_red_however_small_its_steps_are(
    perf: Bench, monkeypatch: pytest.MonkeyPatch, planted: bool
) -> None:
    fuse = training_levers._fuse

    def fuse_wrongly(optimizers: list[torch.optim.Optimizer], **about: Any) -> None:
        fuse(optimizers, **about)
        optimizers[0].param_groups[0]["lr"] = 0.0

    if planted:
        monkeypatch.setattr(training_levers, "_fuse", fuse_wrongly)
    perf.workload = replace(perf.workload, make=partial(make, rate=1e-5))
    climbed(perf, {"fused": {"fused": True}})
    outcomes = {each.gate: each.outcome for each in perf.notes.verdicts}
    assert outcomes["fused losses"] is Outcome.PASS
    assert outcomes["fused weights"] is (Outcome.FAIL if planted else Outcome.PASS)


class DroppedByFunction(nn.Module):
    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return nn.functional.dropout(values)


def test_steps_that_draw_numbers_are_told_and_not_judged(perf: Bench) -> None:
    def drawing(precision: Precision, device: torch.device, seed: int) -> Training:
        return make(precision, device, seed, 1e-2, DroppedByFunction())

    perf.workload = replace(perf.workload, make=drawing)
    climbed(perf, {"channels_last": {"channels_last": True}})
    judged = {each.gate: each for each in perf.notes.verdicts}
    for gate in ("channels_last losses", "channels_last weights"):
        assert judged[gate].outcome is Outcome.NOT_GATED
        assert "draws random numbers" in judged[gate].reason


def chaotic(precision: Precision, device: torch.device, seed: int) -> Training:
    """Return a training whose every step makes a thousandfold of what rounding does to a weight."""
    training = make(precision, device, seed)
    model = training.state[0]

    def step(batch: Any) -> torch.Tensor:
        with torch.no_grad():
            values: torch.Tensor = model[0].weight
            loss = 0.5 + values.abs().flatten()[:4].mean()
            values.copy_(torch.frac(997.3 * values.abs()))
        return loss

    return replace(training, step=step)


@pytest.mark.parametrize(
    ("off_by", "outcome"), [(1e-5, Outcome.NOT_GATED), (0.5, Outcome.FAIL)], ids=["later", "first"]
)
def test_what_rounding_alone_drives_apart_is_told_and_its_first_loss_is_judged(
    perf: Bench, monkeypatch: pytest.MonkeyPatch, off_by: float, outcome: Outcome
) -> None:
    def put_otherwise(models: list[nn.Module]) -> None:
        for parameter in models[0].parameters():
            parameter.data.mul_(1 + off_by)

    monkeypatch.setattr(training_levers, "_put_channels_last", put_otherwise)
    perf.workload = replace(perf.workload, make=chaotic)
    climbed(perf, {"channels_last": {"channels_last": True}})
    judged = {each.gate: each for each in perf.notes.verdicts}
    assert judged["channels_last losses"].outcome is outcome
    if outcome is Outcome.NOT_GATED:
        assert "too noisy to judge by" in judged["channels_last losses"].reason


@pytest.mark.parametrize("why", [TimeoutError("late"), torch.OutOfMemoryError("no room")])
def test_a_lever_stays_red_where_no_trial_of_the_plain_step_can_be_taken(
    perf: Bench, monkeypatch: pytest.MonkeyPatch, why: Exception
) -> None:
    def put_wrongly(models: list[nn.Module]) -> None:
        for parameter in models[0].parameters():
            parameter.data.mul_(1.5)

    def hindered(arm: Arm, *_: object) -> None:
        raise why

    monkeypatch.setattr(training_levers, "_put_channels_last", put_wrongly)
    monkeypatch.setattr(Arm, "perturb", hindered)
    (_, tried) = climbed(perf, {"channels_last": {"channels_last": True}})
    outcomes = {each.gate: each.outcome for each in perf.notes.verdicts}
    assert outcomes["channels_last losses"] is Outcome.FAIL
    assert tried.left_out == ""


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
