"""Every planted bug turns its gates red, for the right reason; its healthy twin is green."""

import pytest
import torch

from perfsuite.probes.registry import PROBES
from sabotage.catalogue import COUNT, ROWS
from sabotage.row import Row, not_green, not_red


def device_of(row: Row) -> torch.device:
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
def test_the_healthy_twin_is_green(row: Row) -> None:
    assert not_green(row, row.healthy(device_of(row))) == []


@rows
def test_the_planted_bug_is_red_for_its_reason(row: Row) -> None:
    assert not_red(row, row.planted(device_of(row))) == []


def test_the_catalogue_is_whole() -> None:
    numbers = {row.number for row in ROWS}
    assert numbers == set(range(1, COUNT + 1))


def test_no_two_rows_share_their_name() -> None:
    assert len({row.plant for row in ROWS}) == len(ROWS)


def test_every_probe_is_proven_by_a_bug() -> None:
    gates = {gate for row in ROWS for gate in row.gates}
    assert {f"probe {probe.__name__}" for probe in PROBES} <= gates
