"""The ladder and the advice pull levers that there are, one more on each rung."""

import importlib.util
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from perfsuite.benchmarks import step_advice
from perfsuite.devices.cpu import Cpu
from perfsuite.devices.precision import Precision
from perfsuite.judging.estimates import Estimate
from perfsuite.judging.gains import LeverTried
from perfsuite.judging.top_rung import Convolution
from perfsuite.measuring.climbing import Recipe
from perfsuite.training.levers import Levers
from perfsuite.training.tutorial import tutorial_workload

ROOT = Path(__file__).parents[2]
CONVOLUTION = Convolution(operator="convolution", shapes=[], flop_per_s=1.0)
LEVERS = {field.name for field in fields(Levers)}


def ladder_file() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "test_ladder", ROOT / "benchmarks" / "test_ladder.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Asked:
    """Stands for `try_levers`, and keeps what it was asked."""

    def __init__(self, fastest: str = "") -> None:
        self.fastest = fastest
        self.calls: list[tuple[Recipe, dict[str, dict[str, Any]], dict[str, Any]]] = []

    def __call__(
        self, _: Any, first: Recipe, levers: dict[str, dict[str, Any]], **about: Any
    ) -> list[LeverTried]:
        self.calls.append((first, levers, about))
        gains = {self.fastest: Estimate.exact(2.0)}
        tried = [LeverTried(name=name, gain=gains.get(name)) for name in levers]
        return [LeverTried(name=about["foot"], samples_per_s=7.0), *tried]


def bench() -> Any:
    kept: dict[str, Any] = {}
    return SimpleNamespace(
        machine=SimpleNamespace(amp=(Precision.fp16, Precision.bf16), device=Cpu()),
        workload=tutorial_workload("tiny"),
        device=torch.device("cpu"),
        configure=lambda **_: None,
        keep=kept.__setitem__,
        metric=lambda name, value, **_: kept.update({name: value}),
        show=lambda text: kept.update(shown=text),
        kept=kept,
    )


def test_each_rung_of_the_ladder_changes_one_thing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ladder, asked, perf = ladder_file(), Asked(), bench()
    monkeypatch.setattr(ladder, "try_levers", asked)
    monkeypatch.setattr(ladder, "fitting_samples", lambda *_: 8)
    monkeypatch.setattr(ladder, "largest_convolutions", lambda *_, **__: [CONVOLUTION])
    ladder.test_ladder(perf, tmp_path)
    ((recipe, levers, about),) = asked.calls
    assert (about["samples"], about["climb"], about["always"]) == (8, True, ladder.AMP)
    assert (recipe.precision, recipe.fused, recipe.reads_loss) == (Precision.fp32, False, True)
    changed: list[str] = []
    for change in levers.values():
        (name,) = change
        below, recipe = recipe, replace(recipe, **change)
        assert getattr(recipe, name) != getattr(below, name)
        changed.append(name)
    assert recipe.precision is Precision.bf16
    assert set(changed) == LEVERS | {"precision", "feed", "reads_loss"}
    images, _ = next(iter(asked.calls[0][0].feed(8)))  # type: ignore[misc]  # it has one
    assert images.shape == (8, 1, 28, 28)
    assert perf.kept["images_per_s"] == 7.0
    assert [each["operator"] for each in perf.kept["convolutions"]] == ["convolution"]


@pytest.mark.parametrize(
    ("fastest", "recipe"),
    [
        ("as it is in fp32", Recipe(precision=Precision.fp32)),
        ("mixed precision", Recipe(precision=Precision.bf16)),
        (
            "mixed precision, channels_last",
            Recipe(precision=Precision.bf16, channels_last=True),
        ),
    ],
)
def test_the_advice_tries_precision_first_and_the_rest_beside_the_fastest(
    monkeypatch: pytest.MonkeyPatch, fastest: str, recipe: Recipe
) -> None:
    asked, perf = Asked(fastest), bench()
    monkeypatch.setattr(step_advice, "try_levers", asked)
    step_advice.test_step_advice(perf)
    (plain, first, about), (base, others, beside) = asked.calls
    assert (plain, base) == (Recipe(precision=Precision.fp32), recipe)
    assert (about["samples"], about["climb"]) == (beside["samples"], beside["climb"])
    assert (beside["samples"], beside["climb"]) == (16, False)
    assert (about["foot"], beside["foot"]) == ("as it is in fp32", fastest)
    assert first["mixed precision, channels_last"] == {
        "precision": Precision.bf16,
        "channels_last": True,
    }
    changed = {name for change in (*first.values(), *others.values()) for name in change}
    assert changed == LEVERS | {"precision"}
    assert perf.kept["shown"].startswith("loader that prefetches: left out: batches come from a")
    told = [each["name"] for each in perf.kept["levers"]]
    assert told == ["as it is in fp32", *first, *others]


def test_the_advice_tries_a_loader_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, perf = Asked(), bench()
    data = torch.utils.data.TensorDataset(torch.zeros(4, 1, 28, 28), torch.zeros(4))
    loader = torch.utils.data.DataLoader(data, batch_size=2)
    make = perf.workload.make

    def fed(*about: Any) -> Any:
        return replace(make(*about), batches=loader)

    perf.workload = replace(perf.workload, make=fed)
    monkeypatch.setattr(step_advice, "try_levers", asked)
    monkeypatch.setattr(step_advice, "own_samples", lambda *_: 2)
    step_advice.test_step_advice(perf)
    first, levers, about = asked.calls[2]
    foot = "as it is in fp32, fed by its loader"
    assert (about["foot"], list(levers)) == (foot, ["loader that prefetches"])
    assert first.feed is not None
    assert first.feed(2) is loader
    assert levers["loader that prefetches"]["feed"](2).num_workers == 2
    assert [each["name"] for each in perf.kept["levers"]][-2:] == [foot, "loader that prefetches"]
