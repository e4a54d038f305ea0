"""The machine that several ranks are: its key, its facts and how they talk; or why it is none."""

from typing import Any

import pytest
import torch.distributed as dist

from perfsuite.devices.rank_facts import settings
from perfsuite.devices.ranks import Ranks
from perfsuite.devices.torchrun import RankError, Seat
from perfsuite.measuring import machine as module
from perfsuite.measuring.machine import machine

SEAT = Seat(rank=0, ranks=4, local_rank=0, local_ranks=2)


class Like(Ranks):
    """Ranks of which the others tell what this one does, but for `torch`."""

    def __init__(self, torch: str | None = None) -> None:
        super().__init__(SEAT)
        self._torch = torch

    def each(self, value: Any) -> list[Any]:
        required, facts = value
        last = required if self._torch is None else required | {"torch": self._torch}
        return [value, value, value, (last, facts)]


@pytest.fixture
def left(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Pretend a seat among four ranks; return what notes that this one left them."""
    noted: list[bool] = []
    monkeypatch.setattr(module, "seat", lambda: SEAT)
    monkeypatch.setattr(module, "leave", lambda: noted.append(True))
    monkeypatch.setattr(dist, "get_backend", lambda: "gloo")
    monkeypatch.setattr(dist, "get_backend_config", lambda: "cpu:gloo")
    for name in settings():
        monkeypatch.delenv(name)
    monkeypatch.setenv("NCCL_ALGO", "Ring")
    return noted


def test_ranks_on_like_machines_are_one(left: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "join", lambda *_: Like())
    found = machine("cpu")
    assert found.hardware.key.endswith("-ranks-2x2")
    assert (found.facts["ranks"], found.facts["nodes"]) == (4, 2)
    talk = {name: found.software[name] for name in ("collectives", "NCCL_ALGO")}
    assert talk == {"collectives": "gloo", "NCCL_ALGO": "Ring"}
    assert not left


def test_ranks_on_unlike_machines_leave_each_other(
    left: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "join", lambda *_: Like(torch="1.0"))
    with pytest.raises(RankError, match=r"torch: .* on ranks 0, 1, 2, 1\.0 on rank 3"):
        machine("cpu")
    assert left == [True]


def test_one_rank_tells_nothing_of_ranks() -> None:
    found = machine("cpu")
    assert "ranks" not in found.hardware.key
    assert not {"ranks", "nodes"} & found.facts.keys()
    assert "collectives" not in found.software
