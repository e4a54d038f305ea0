"""Every planted bug turns its gates red, for the right reason; its healthy twin is green."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from probing import CPU
from torch.utils._python_dispatch import TorchDispatchMode

from perfsuite.probes.registry import PROBES
from sabotage import environments as env
from sabotage import speed
from sabotage.catalogue import ROWS
from sabotage.row import CatalogueRow, not_green, not_red

pytestmark = pytest.mark.usefixtures("narrow_head")

COUNT = 55  # of the kinds of bugs that are known
OPERATOR_S = 1e-4
clock_for = speed.clock_for


class OperatorClock(TorchDispatchMode):
    """A clock by which every operator takes equally long, and a wait as long as it should."""

    now_s = started_s = 0.0
    marks_s: Sequence[float] = ()
    counting = ExitStack()

    def start(self) -> None:
        self.started_s = self.now_s
        self.marks_s = [self.now_s]
        self.counting.enter_context(self)

    def taking(self, step: Callable[[Any], Any]) -> AbstractContextManager[Callable[[Any], Any]]:
        return nullcontext(step)

    def lap(self) -> None:
        self.marks_s = [*self.marks_s, self.now_s]

    def laps_s(self) -> list[float]:
        return [now - then for then, now in pairwise(self.marks_s)]

    def host_s(self) -> float | None:
        return None

    def ranks_s(self) -> tuple[float, ...]:
        return ()

    def stop(self) -> tuple[float, float | None]:
        self.counting.close()
        return self.now_s - self.started_s, None

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        self.now_s += OPERATOR_S
        return func(*args, **(kwargs or {}))


@pytest.fixture(autouse=True)
def counts_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time steps on a CPU by what they do: a busy machine may leave open what a real clock says."""
    clock = OperatorClock()  # type: ignore[no-untyped-call]  # what torch inherits to it
    monkeypatch.setattr(
        speed, "clock_for", lambda device: clock if device.type == "cpu" else clock_for(device)
    )
    monkeypatch.setattr(speed, "sleep", clock.sleep)
    monkeypatch.setattr(speed, "STEPS", 1)  # one is like the next


def device_of(row: CatalogueRow) -> torch.device:
    return torch.device("cuda" if row.needs_cuda else "cpu")


rows = pytest.mark.parametrize(
    "row",
    [
        pytest.param(
            row,
            id=f"{row.number}-{row.plant.replace(' ', '-')}",
            marks=[pytest.mark.cuda] if row.needs_cuda else [],
        )
        for row in ROWS
    ],
)


@rows
def test_the_healthy_twin_is_green(row: CatalogueRow) -> None:
    assert not_green(row, row.healthy(device_of(row))) == []


@rows
def test_the_planted_bug_is_red_for_its_reason(row: CatalogueRow) -> None:
    assert not_red(row, row.planted(device_of(row))) == []


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row.on(env.Transformer), id=row.plant.replace(" ", "-"))
        for row in ROWS
        if row.on
    ],
)
def test_a_bug_of_the_step_is_seen_on_a_transformer_too(row: CatalogueRow) -> None:
    # As a bug of its backward pass is named after the weights of one model.
    reasons = dict.fromkeys(row.because, "")
    assert not_green(row, row.healthy(CPU)) == []
    assert not_red(replace(row, because=reasons), row.planted(CPU)) == []


def test_the_catalogue_is_whole() -> None:
    numbers = {row.number for row in ROWS}
    assert numbers == set(range(1, COUNT + 1))


def test_no_two_rows_share_their_name() -> None:
    assert len({row.plant for row in ROWS}) == len(ROWS)


def test_every_probe_is_proven_by_a_bug() -> None:
    gates = {gate for row in ROWS for gate in row.gates}
    assert {f"probe {probe.name}" for probe in PROBES} <= gates


def test_the_search_for_an_algorithm_is_judged_on_a_network_that_keeps_a_gpu_busy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compared: list[Any] = []
    monkeypatch.setattr(
        speed, "compared", lambda _, first, second, __: compared.extend((first, second))
    )
    speed.without_search(planted=True)(torch.device("cpu"))
    for arm in compared:
        ((images, _),) = arm.take(1)
        assert len(images) == 512
        assert sum(parameter.numel() for parameter in arm.parameters()) > 10e6
    assert len(compared) == 2
