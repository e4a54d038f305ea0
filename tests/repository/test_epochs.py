"""What the suite says of epochs: none carries the loading of libraries, none is judged alone."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from perfsuite.devices.device import HOST
from perfsuite.devices.precision import Precision
from perfsuite.measuring import epochs
from perfsuite.measuring.convergence import TrainingRun

SUITE = Path(__file__).parents[2] / "benchmarks"


def module(name: str) -> Any:
    """Return a file of the suite, which is no package, as a module of its own."""
    spec = spec_from_file_location(f"suite_{name}", SUITE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    found = module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


WHERE = SimpleNamespace(getoption=lambda _: None)
"""A configuration without --perf-epochs."""


class BenchThatRunsNothing:
    """Notes the arms that are made and the names of figures, and takes whatever else is asked."""

    def __init__(self) -> None:
        self.metrics: list[str] = []
        self.arms: list[SimpleNamespace] = []
        self.clock = None

    def fresh(self, precision: Precision) -> SimpleNamespace:
        arm = SimpleNamespace(
            precision=precision,
            label=str(precision),
            take=lambda steps: [0] * steps,
            device=HOST,
            parts={},
            named_parameters=dict,
        )
        self.arms.append(arm)
        return arm

    def metric(self, name: str, *_: object, **__: object) -> None:
        self.metrics.append(name)

    def progress(self, _: str) -> Any:
        return lambda *_: None

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


def test_a_step_that_is_thrown_away_goes_before_the_epochs_of_each_precision(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trained: list[tuple[Precision, int, int]] = []
    tutorial, perf = module("test_tutorial"), BenchThatRunsNothing()

    def train(arm: Any, batches: list[int], _: object) -> TrainingRun:
        trained.append((arm.precision, perf.arms.index(arm), len(batches)))
        return TrainingRun(losses=(1.0,), elapsed_s=1.0, skipped_steps=0, scales=(), non_finite=())

    monkeypatch.setattr(tutorial, "train", train)
    monkeypatch.setattr(epochs, "train", train)
    monkeypatch.setattr(tutorial, "table", lambda *_: "")
    tutorial.test_tutorial(perf, Precision.fp16, WHERE)
    asked = [tutorial.STEPS] * tutorial.EPOCHS
    for precision in (Precision.fp32, Precision.fp16):
        steps = [(arm, steps) for found, arm, steps in trained if found is precision]
        thrown_away, *rest = steps
        assert thrown_away[1] == 1
        assert [each for _, each in rest] == asked
        assert thrown_away[0] not in {arm for arm, _ in rest}
    assert perf.metrics == ["epoch_s"]


def test_the_loaders_one_epoch_is_no_figure_to_be_compared() -> None:
    assert "perf.metric(" not in (SUITE / "test_loader.py").read_text(encoding="utf-8")
