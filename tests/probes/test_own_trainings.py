"""Probes look at any training: outputs of any form, several models, and what a state shows."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from probing import CPU
from torch import Tensor, nn

from perfsuite.devices.precision import Precision
from perfsuite.judging.gates import Outcome, Verdict
from perfsuite.probes import dtypes, gradients, optimizer, registry
from perfsuite.probes.probe import Found, MakeArm, Probe
from perfsuite.training.arm import Arm
from perfsuite.training.workload import Training, Workload


@dataclass
class Output:
    """What a model returns in the manner of a library: a loss beside its logits."""

    loss: Tensor
    logits: Tensor


class Speaks(nn.Module):
    """Returns its output in some form."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form
        self.layers = nn.Sequential(nn.Linear(8, 32), nn.Dropout(0.1), nn.Linear(32, 4))

    def forward(self, x: Tensor, y: Tensor) -> Any:
        logits = self.layers(x)
        loss = nn.functional.cross_entropy(logits, y)
        forms = {"tuple": (loss, logits), "dict": {"loss": loss, "none": None}}
        return forms.get(self.form, Output(loss, logits))


def batches() -> list[dict[str, Tensor]]:
    return [{"x": torch.randn(16, 8), "y": torch.randint(4, (16,))} for _ in range(2)]


def speaking(form: str, precision: Precision, device: torch.device, *, compiled: bool) -> Training:
    model: Any = Speaks(form).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    scaler = precision.scaler(device)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1000)
    called = torch.compile(model) if compiled else model

    def step(batch: dict[str, Tensor]) -> Tensor:
        optimizer.zero_grad()
        with precision.autocast(device):
            output = called(**batch)
        place = {"tuple": 0, "dict": "loss"}.get(form)
        loss: Tensor = output.loss if place is None else output[place]
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        schedule.step()
        return loss

    state = {"model": called, "rest": [optimizer, scaler, schedule]}
    return Training(step=step, batches=batches(), state=state)


def adversarial(precision: Precision, device: torch.device, _seed: int) -> Training:
    """Return a training of two models, each with its optimizer."""
    maker, critic = (nn.Linear(8, 8).to(device), nn.Linear(8, 1).to(device))
    pair = [torch.optim.Adam(each.parameters(), fused=True) for each in (maker, critic)]
    scaler = precision.scaler(device)

    def step(batch: Tensor) -> Tensor:
        losses = []
        for index, each in enumerate(pair):
            pair[0].zero_grad()
            pair[1].zero_grad()
            with precision.autocast(device):
                fake = critic(maker(batch) if index == 0 else maker(batch).detach())
                loss = (fake.float() - 1 + index).square().mean()
                if index == 1:
                    loss = loss + (critic(batch).float() - 1).square().mean()
            scaler.scale(loss).backward()
            scaler.step(each)
            losses.append(loss.detach())
        scaler.update()
        return torch.stack(losses).sum()

    return Training(step=step, batches=[torch.randn(16, 8)], state=[maker, critic, *pair, scaler])


def looked_at(make: Any, precision: Precision) -> dict[str, Verdict]:
    workload = Workload(name="own", make=make)

    def made(each: Precision) -> Any:
        return workload.arm(each, CPU)

    (batch,) = made(precision).take(1)
    verdicts = [registry.run_probe(probe, made, precision, batch) for probe in registry.PROBES]
    return {verdict.gate.removeprefix("probe "): verdict for verdict in verdicts}


@pytest.mark.parametrize(
    ("form", "precision"),
    [
        *(("tuple", each) for each in (Precision.fp32, Precision.bf16, Precision.fp16)),
        *(("dict", Precision.fp16), ("dataclass", Precision.fp16)),  # all that bf16 has, and scales
    ],
    ids=str,
)
def test_a_healthy_training_passes_whatever_its_model_returns(
    form: str, precision: Precision
) -> None:
    found = looked_at(lambda p, d, _: speaking(form, p, d, compiled=False), precision)
    assert [str(each) for each in found.values() if each.outcome is not Outcome.PASS] == []


def test_a_compiled_model_is_looked_at_as_it_was_written() -> None:
    found = looked_at(lambda p, d, _: speaking("tuple", p, d, compiled=True), Precision.bf16)
    assert [str(each) for each in found.values() if each.outcome is not Outcome.PASS] == []


def test_two_models_with_an_optimizer_each_are_looked_at() -> None:
    found = looked_at(adversarial, Precision.bf16)
    assert found["step_count"].figure == "3 optimizer steps in 3 calls of 2 optimizers"
    for name in ("layer_dtypes", "autocast_in_backward", "loss_scale", "restored_state"):
        assert found[name].outcome is Outcome.PASS, str(found[name])


def test_what_a_state_does_not_show_is_not_gated_and_told() -> None:
    def hidden(precision: Precision, device: torch.device, _: int) -> Training:
        shown = speaking("tuple", precision, device, compiled=False)
        return Training(step=shown.step, batches=shown.batches, state=[])

    found = looked_at(hidden, Precision.bf16)
    assert found["step_count"].outcome is Outcome.NOT_GATED
    assert "add the optimizer to `state`" in found["step_count"].reason
    assert "add the model to `state`" in found["layer_dtypes"].reason
    assert found["restored_state"].outcome is Outcome.FAIL  # it changes what is not put back
    told = registry.judge_probes([found["step_count"], found["host_waits"]])
    assert [each.outcome for each in told] == [Outcome.PASS, Outcome.NOT_GATED]


def test_a_step_too_sensitive_for_the_canary_is_not_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    perturb = Arm.perturb
    monkeypatch.setattr(Arm, "perturb", lambda arm, seed: perturb(arm, seed, by=10.0))
    found = looked_at(lambda p, d, _: speaking("tuple", p, d, compiled=False), Precision.bf16)
    assert found["sgd_canary"].outcome is Outcome.NOT_GATED
    assert "times as fast as itself" in found["sgd_canary"].reason


def test_a_probe_that_fails_does_not_blame_the_step() -> None:
    def look(_: MakeArm, __: Precision, batch: Any) -> Found:
        raise AttributeError(batch)

    broken = Probe(look, wanted="", remedy="")
    own = registry.run_probe(dtypes.loss_dtype, lambda _: 1 / 0, Precision.fp32, None)  # type: ignore[arg-type, return-value]  # fails
    assert own.outcome is Outcome.FAIL
    verdict = registry.run_probe(broken, lambda _: None, Precision.fp32, None)  # type: ignore[arg-type, return-value]  # as above
    assert verdict.outcome is Outcome.FAIL  # this file is no probe's
    for probe in (gradients.gradients, optimizer.step_count):
        found = registry.run_probe(probe, lambda _: None, Precision.fp32, None)  # type: ignore[arg-type, return-value]  # as above
        assert found.outcome is Outcome.INCONCLUSIVE
        assert "please report it" in found.reason
