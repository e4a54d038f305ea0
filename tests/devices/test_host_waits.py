"""Whatever makes the host wait for a GPU is seen inside a step, without a GPU to wait for."""

import contextlib
import sys
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch

from perfsuite.devices.accelerator import synchronizing_raises
from perfsuite.devices.cuda import Cuda
from perfsuite.devices.device import HostWaitError


def stream() -> Any:
    return torch.Stream(stream_id=0, device_index=0, device_type=1)


# Here is no GPU: each raises something else where its call is not stopped.
WAYS: dict[str, tuple[Callable[[], object], str]] = {
    "device": (torch.cuda.synchronize, "the device"),
    "accelerator": (lambda: torch.accelerator.synchronize(0), "the device"),
    "its own event": (lambda: torch.cuda.Event().synchronize(), "an event"),
    "an event": (lambda: torch.Event("cuda").synchronize(), "an event"),
    "a stream": (lambda: stream().synchronize(), "a stream"),
}


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    """Pretend that there is a GPU, which is asked for no kernels."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "_lazy_init", lambda: None)
    monkeypatch.setattr(torch.cuda, "device", lambda _: contextlib.nullcontext())
    modes: list[object] = ["default"]
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: modes[-1])

    def set_mode(mode: object) -> None:
        warnings.warn("Synchronization debug mode is a prototype feature", stacklevel=1)
        modes.append(mode)

    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", set_mode)
    return Cuda(0)


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_synchronize_is_a_wait(gpu: Cuda, way: str) -> None:
    wait, what = WAYS[way]
    with (
        pytest.raises(HostWaitError, match=f"synchronizes with {what}"),
        gpu.host_waits_raise(),
    ):
        wait()


def test_a_wait_that_the_step_hides_is_told_all_the_same(gpu: Cuda) -> None:
    told = pytest.raises(HostWaitError, match="the device")
    with told, gpu.host_waits_raise(), contextlib.suppress(RuntimeError):
        torch.cuda.synchronize()


def test_the_warning_of_a_prototype_is_no_fault_of_the_step(gpu: Cuda) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with gpu.host_waits_raise():
            pass
    assert torch.cuda.get_sync_debug_mode() == "default"  # type: ignore[comparison-overlap]  # fake


def test_what_torch_itself_says_of_a_wait_is_told(gpu: Cuda) -> None:
    told = pytest.raises(HostWaitError, match=r"^called a synchronizing CUDA operation$")
    with told, gpu.host_waits_raise():
        raise RuntimeError("called a synchronizing CUDA operation\nand more")


def test_another_error_of_the_step_stays_what_it_is(gpu: Cuda) -> None:
    with pytest.raises(RuntimeError, match="out of something"), gpu.host_waits_raise():
        raise RuntimeError("out of something")


def test_what_is_no_synchronisation_of_torch_is_let_through() -> None:
    class Barrier:
        def synchronize(self) -> str:
            return "done"

    with synchronizing_raises():
        assert Barrier().synchronize() == "done"
        torch.ones(2).sum().item()


def test_a_profiler_that_was_there_is_there_again() -> None:
    seen: list[str] = []

    def profiler(_: object, event: str, __: object) -> None:
        seen.append(event)

    sys.setprofile(profiler)
    try:
        with synchronizing_raises():
            pass
        assert sys.getprofile() is profiler
    finally:
        sys.setprofile(None)
    assert seen
