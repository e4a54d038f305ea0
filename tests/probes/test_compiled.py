"""Compiled equals eager: a backend that changes a number is red, a right one is green."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from probing import CPU
from torch import nn

from perfsuite import TrainStep, compiled_step, run_probe
from perfsuite.devices.precision import Precision
from perfsuite.judging.gates import Outcome, Verdict
from perfsuite.training.workload import Training, Workload

Backend = Callable[[torch.fx.GraphModule, Any], Callable[..., Any]]


def workload(backend: str | Backend | None) -> Workload:
    def make(precision: Precision, device: torch.device, seed: int) -> Training:
        layers = nn.Linear(8, 16), nn.LayerNorm(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 4)
        model = nn.Sequential(*layers).to(device)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
        step = TrainStep(model, optimizer, precision=precision, backend=backend)
        draw = torch.Generator().manual_seed(seed)
        batches = [
            (torch.randn(8, 8, generator=draw), torch.randint(4, (8,), generator=draw))
            for _ in range(10)
        ]
        return Training(step=step, batches=batches, state=[model, optimizer, step.scaler])

    return Workload(name="compiled", make=make)


def looked_at(backend: str | Backend | None, precision: Precision = Precision.bf16) -> Verdict:
    made = workload(backend)
    (batch,) = made.arm(precision, CPU).take(1)
    return run_probe(compiled_step, lambda asked: made.arm(asked, CPU), precision, batch)


def changing(factor: float) -> Backend:
    """Compile whatever is handed over wrongly: its first output is so many times too large."""

    def backend(module: torch.fx.GraphModule, _: Any) -> Callable[..., Any]:
        def run(*inputs: Any) -> tuple[Any, ...]:
            first, *others = module.forward(*inputs)
            return (first * factor, *others)

        return run

    return backend


def failing(error: Exception) -> Backend:
    def backend(*_: Any) -> Callable[..., Any]:
        raise error

    return backend


@pytest.mark.parametrize("precision", [Precision.fp32, Precision.bf16], ids=str)
def test_a_right_backend_is_green(precision: Precision) -> None:
    verdict = looked_at("aot_eager", precision)
    assert verdict.outcome is Outcome.PASS, str(verdict)
    assert verdict.figure == "6 steps were those of the step as it is written"


@pytest.mark.parametrize("precision", [Precision.fp32, Precision.bf16], ids=str)
def test_a_backend_that_changes_a_number_is_red(precision: Precision) -> None:
    verdict = looked_at(changing(1.1), precision)
    assert verdict.outcome is Outcome.FAIL
    assert "the loss of step 1 is" in verdict.figure
    assert "where it is compiled" in verdict.figure
    assert "losses within 1%" in verdict.threshold


def test_the_healthy_twin_of_that_backend_is_green() -> None:
    assert looked_at(changing(1.0)).outcome is Outcome.PASS


def test_a_step_that_compiles_nothing_is_green_and_says_so() -> None:
    verdict = looked_at(None)
    assert (verdict.outcome, verdict.figure) == (Outcome.PASS, "nothing is compiled")


def test_a_machine_without_a_compiler_is_one_line_and_not_gated() -> None:
    missing = pytest.importorskip("torch._inductor.exc").InvalidCxxCompiler
    verdict = looked_at(failing(missing()))
    assert verdict.outcome is Outcome.NOT_GATED
    assert verdict.reason == "the machine has no C++ compiler: install g++"


def test_a_backend_that_fails_is_red() -> None:
    verdict = looked_at(failing(ValueError("no such operator")))
    assert verdict.outcome is Outcome.FAIL
    assert "no such operator" in verdict.figure
