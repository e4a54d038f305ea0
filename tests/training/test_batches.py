"""Batches of any form are measured, moved and fed; what cannot be is told in one line."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from perfsuite.training.batches import (
    TrainingError,
    doubled,
    endless,
    joined,
    map_tensors,
    moved,
    named_tensors,
    samples_in,
    shapes_of,
)

ONES, TWO = torch.ones(3, 2), torch.tensor(2.0)


class NamedPair(NamedTuple):
    x: Tensor
    y: Tensor


@dataclass
class Data:
    x: Tensor
    y: Tensor
    name: str = "digits"


class Moves:
    """Moves itself, as a batch of tokens does."""

    def __init__(self, device: str = "cpu") -> None:
        self.device = device

    def to(self, device: torch.device) -> "Moves":
        return Moves(str(device))


FORMS: dict[str, tuple[Any, list[str]]] = {
    "tensor": (ONES, ["batch"]),
    "tuple": ((ONES, TWO), ["batch[0]", "batch[1]"]),
    "list": ([ONES, [TWO]], ["batch[0]", "batch[1][0]"]),
    "dict": ({"x": ONES, "n": 3, "y": TWO}, ["batch['x']", "batch['y']"]),
    "ordered": (OrderedDict(x=ONES), ["batch['x']"]),
    "named tuple": (NamedPair(ONES, TWO), ["batch[0]", "batch[1]"]),
    "dataclass": (Data(ONES, TWO), ["batch.x", "batch.y"]),
    "none": (None, []),
}


@pytest.mark.parametrize(("batch", "names"), FORMS.values(), ids=FORMS)
def test_tensors_are_found_and_changed_in_any_form(batch: Any, names: list[str]) -> None:
    assert [name for name, _ in named_tensors(batch)] == names
    changed = map_tensors(lambda tensor: tensor + 1, batch)
    assert type(changed) is type(batch)
    pairs = zip(named_tensors(batch), named_tensors(changed), strict=True)
    assert all(torch.equal(after[1], before[1] + 1) for before, after in pairs)


def test_what_is_no_tensor_stays() -> None:
    assert map_tensors(torch.neg, {"n": 3, "name": "a"}) == {"n": 3, "name": "a"}


def test_a_batch_is_moved_and_one_that_can_moves_itself() -> None:
    meta = torch.device("meta")
    assert moved((ONES, 3), meta)[0].device == meta
    assert moved(Moves(), meta).device == "meta"
    assert moved(ONES, torch.device("cpu")) is ONES


def test_samples_and_shapes() -> None:
    assert samples_in({"scale": TWO, "x": ONES}) == 3
    assert shapes_of((ONES, TWO)) == (
        ("batch[0]", (3, 2), torch.float32),
        ("batch[1]", (), torch.float32),
    )
    with pytest.raises(TrainingError, match=r"a batch without a tensor.*samples="):
        samples_in({"text": "a"})


def test_a_doubled_batch_has_twice_the_samples() -> None:
    twice = doubled({"x": ONES, "scale": TWO, "rows": torch.ones(2)})
    assert {name: tuple(tensor.shape) for name, tensor in twice.items()} == {
        "x": (6, 2),
        "scale": (),
        "rows": (2,),
    }


def test_batches_begin_anew_when_they_end() -> None:
    assert list(islice(endless([1, 2]), 5)) == [1, 2, 1, 2, 1]


def once() -> Iterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("make", "told"),
    [(list, "there are no batches"), (once, "they can be read only once")],
    ids=["empty", "generator"],
)
def test_batches_that_run_out_are_told(make: Callable[[], Any], told: str) -> None:
    with pytest.raises(TrainingError, match=told):
        list(islice(endless(make()), 3))


class Held(list[int]):
    """A data set, in which whatever is given is held as well."""

    def __init__(self, held: object = None) -> None:
        super().__init__([1, 2])
        self.held = held


def test_what_cannot_be_handed_to_a_loaders_processes_is_told() -> None:
    def loader(held: object, start: str | None) -> Any:
        data: Any = Held(held)
        return DataLoader(data, num_workers=1, multiprocessing_context=start)

    with pytest.raises(TrainingError, match=r"^the DataLoader's dataset cannot be pickled for its"):
        next(endless(loader(threading.Lock(), "spawn")))
    # Where processes are forks nothing is handed over.
    assert next(endless(loader(threading.Lock(), "fork"))).tolist() == [1]


def test_an_error_of_the_batches_own_is_not_taken_for_that() -> None:
    class Faulty:
        def __iter__(self) -> Iterator[int]:
            raise TypeError("cannot pickle it, says the user's own code")

    with pytest.raises(TypeError, match="the user's own code"):
        next(endless(Faulty()))


def test_the_batches_of_several_ranks_are_joined_by_their_samples_alone() -> None:
    first = {"x": torch.zeros(2, 3), "scale": TWO, "parts": [torch.zeros(2)]}
    other = {"x": torch.ones(1, 3), "scale": TWO, "parts": [torch.ones(1)]}
    found = joined([first, other, other])
    assert found["x"].sum(dim=1).tolist() == [0.0, 0.0, 3.0, 3.0]
    assert found["scale"] is TWO
    assert found["parts"][0].tolist() == [0.0, 0.0, 1.0, 1.0]
