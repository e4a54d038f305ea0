"""What a step changes is copied and put back: all of it, as often as it is asked for."""

import random
import threading
from typing import Any

import numpy as np
import pytest
import torch
from test_step import (
    CPU,
    ON_CPU,
    OPTIMIZE,
    OPTIMIZERS,
    Optimize,
    batches,
    fresh,
    step_of,
    values,
    weights,
)
from torch import Tensor, nn
from torch.nn import functional as F

from perfsuite.devices.precision import Precision
from perfsuite.training.batches import TrainingError
from perfsuite.training.snapshot import difference, parts_of, snapshot, states_of
from perfsuite.training.step import TrainStep

pytestmark = pytest.mark.usefixtures("narrow_head")


@pytest.mark.parametrize("taken", [0, 2], ids=["fresh", "trained"])
@OPTIMIZE
@ON_CPU
def test_a_restored_step_repeats_its_losses(
    precision: Precision, optimize: Optimize, taken: int
) -> None:
    step = step_of(precision, optimize)
    for batch in batches(CPU)[:taken]:
        step(batch)
    restore, before = (
        snapshot(parts_of([step.model, step.optimizer, step.scaler]), CPU),
        weights(step.model),
    )
    once = values(step(batch) for batch in batches(CPU)[taken:])
    # Twice: the first replay must not write into what was copied.
    for _ in range(2):
        restore()
        assert all(map(torch.equal, weights(step.model), before))
        assert all(parameter.grad is None for parameter in step.model.parameters())
        assert bool(step.optimizer.state_dict()["state"]) is bool(taken)
        assert values(step(batch) for batch in batches(CPU)[taken:]) == once


def overflowing(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels) * 1e30


def test_an_overflow_skips_the_step_and_halves_the_scale_until_restored() -> None:
    step = TrainStep(
        *fresh(OPTIMIZERS["sgd"], CPU), precision=Precision.fp16, criterion=overflowing
    )
    restore = snapshot(parts_of([step.model, step.optimizer, step.scaler]), CPU)
    before = [parameter.detach().clone() for parameter in step.model.parameters()]
    scale = step.scaler.get_scale()
    step(batches(CPU)[0])
    assert all(map(torch.equal, step.model.parameters(), before))
    assert step.scaler.get_scale() == scale / 2
    restore()
    assert step.scaler.get_scale() == scale


class Counts:
    """Something with a state that is no module."""

    def __init__(self) -> None:
        self.count = 0
        self.more: dict[str, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count, **({"more": self.more} if self.more else {})}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count = state["count"]


class Unsaved(nn.Module):
    """A module with a buffer that its state_dict leaves out."""

    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(2), persistent=False)


def test_what_has_a_state_is_found_in_lists_and_mappings_by_name() -> None:
    counts, module = Counts(), Unsaved()
    found = parts_of([module, {"ema": counts, "more": (counts,)}])
    assert found == {"state[0]": module, "state[1]['ema']": counts, "state[1]['more'][0]": counts}
    assert parts_of(counts) == {"state": counts}


def test_what_has_no_state_is_named() -> None:
    with pytest.raises(TrainingError, match=r"^state\[1\] is of type int, which has no state_dict"):
        parts_of([Counts(), 3])


@pytest.mark.parametrize(
    ("held", "what"),
    [
        ((n for n in range(3)), "generator"),
        (threading.Lock(), "lock"),
        (torch.ones(1, requires_grad=True) * 2, "Tensor"),
    ],
    ids=["generator", "lock", "graph"],
)
def test_what_cannot_be_copied_is_told_with_the_way_to_it(held: object, what: str) -> None:
    counts = Counts()
    counts.more = {"ok": 1, "seen": [torch.ones(1), held]}
    told = rf"^state\[1\]\.state_dict\(\)\['more'\]\['seen'\]\[1\], of type {what}, cannot be cop"
    for copied in (lambda parts: snapshot(parts, CPU), states_of):
        with pytest.raises(TrainingError, match=told) as caught:
            copied(parts_of([Unsaved(), counts]))
        assert "\n" not in str(caught.value)
    counts.more = {"ok": 1}
    assert states_of(parts_of(counts)) == {"state": {"count": 0, "more": {"ok": 1}}}


def test_state_buffers_and_random_numbers_are_put_back() -> None:
    counts, module = Counts(), Unsaved()
    restore = snapshot(parts_of([counts, module]), CPU)

    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), torch.rand(()).item()

    drawn = draw()
    counts.count += 1
    module.seen += 1
    restore()
    assert counts.count == 0
    assert module.seen.tolist() == [0.0, 0.0]
    assert draw() == drawn


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (lambda state: state["w"].add_(1), "['w']"),
        (lambda state: state["n"].append(1), "['n'][1]"),
        (lambda state: state.pop("n"), "['n']"),
        (lambda state: state.update(m=1), "['m']"),
    ],
    ids=["tensor", "longer", "gone", "new"],
)
def test_the_first_difference_of_two_states_is_named(change: Any, where: str) -> None:
    def state() -> dict[str, Any]:
        return {"w": torch.tensor([1.0, float("nan")]), "n": [0]}

    other = state()
    assert difference(state(), other) is None
    change(other)
    assert difference(state(), other) == where


def test_a_copy_of_states_does_not_follow_them() -> None:
    counts = Counts()
    parts = parts_of([counts])
    before = states_of(parts)
    counts.count += 1
    assert difference(before, states_of(parts)) == "['state[0]']['count']"
