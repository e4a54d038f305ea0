"""The machine of a rank that was forked: an accelerator of its own, and the others to meet."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from perfsuite.devices.cpu import Cpu
from perfsuite.devices.device import Hardware
from perfsuite.devices.ranks import Ranks
from perfsuite.devices.torchrun import RankError, Seat
from perfsuite.measuring import machine as module
from perfsuite.measuring.machine import Machine, machine_at, machine_of_fork

HARDWARE = Hardware(key="a-ranks-1x2", kind="fake", name="a", count=1, memory_bytes=None)
SECOND = Seat(rank=1, ranks=2, local_rank=1, local_ranks=2)
STORE = object()


@pytest.fixture
def joined(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What joined, in place of a process group."""
    given: list[Any] = []

    def join(*arguments: Any) -> Ranks:
        given.append(arguments)
        return Ranks(arguments[1])

    monkeypatch.setattr(module, "join", join)
    return given


def test_a_rank_has_the_accelerator_of_its_number(
    joined: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    current: list[int] = []
    cuda = torch.device("cuda")
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: cuda)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    monkeypatch.setattr(torch.accelerator, "set_device_index", current.append)
    monkeypatch.setattr(
        module, "device_of", lambda place: SimpleNamespace(place=place, computes_on_host=False)
    )
    last: Any = SimpleNamespace(place=torch.device("xpu", 0), computes_on_host=False)
    known = Machine(device=last, hardware=HARDWARE, software={"threads": 8}, precisions=())
    mine = machine_of_fork(known, "auto", SECOND, STORE)
    assert mine.device.place == torch.device("xpu", 1)
    assert current == [1]
    assert joined == [(mine.device, SECOND, STORE)]
    assert mine.ranks.seat == SECOND
    assert mine.hardware == known.hardware


def test_a_rank_on_a_cpu_computes_with_its_share_of_the_cores(
    joined: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    cpu = Cpu()
    known = Machine(device=cpu, hardware=HARDWARE, software={"threads": 8}, precisions=())
    assert machine_of_fork(known, "cpu", SECOND, STORE).device is cpu
    assert threads == [8]


def test_ranks_without_a_device_of_their_own_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = torch.device("cuda")
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: cuda)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 1)
    with pytest.raises(
        RankError, match="each of 2 ranks of a node needs a device of its own, and it has 1 device"
    ):
        machine_at("auto", SECOND)


def test_a_machine_of_ranks_is_kept_apart_from_that_of_one() -> None:
    alone, both = machine_at("cpu", Seat()), machine_at("cpu", SECOND)
    assert both.hardware.key == f"{alone.hardware.key}-ranks-1x2"
