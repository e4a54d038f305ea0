"""The device: what is asked for is there or an error, and what cannot be known is None."""

from collections.abc import Iterator
from types import SimpleNamespace

import pynvml
import pytest
import torch

from perfsuite.devices import choice, cuda
from perfsuite.devices.cards import CARDS
from perfsuite.devices.choice import (
    KINDS,
    choose_device,
    device_of,
    environment_of,
    started_devices,
)
from perfsuite.devices.cpu import Cpu
from perfsuite.devices.cuda import Cuda
from perfsuite.devices.device import Device, DeviceError

GPU = torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def not_known_yet() -> Iterator[None]:
    """Forget which devices were found, before and after they are made up."""
    choice._device.cache_clear()
    yield
    choice._device.cache_clear()


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    properties = SimpleNamespace(
        name="NVIDIA H200",
        total_memory=150_754_820_096,
        uuid="00000000-0000-0000-0000-000000000000",
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91900)


def test_cuda_without_a_gpu_is_an_error_and_never_a_fall_back(no_gpu: None) -> None:
    with pytest.raises(DeviceError, match=r"--perf-device cuda: .* \(torch "):
        choose_device("cuda")


def test_auto_takes_the_cpu_where_there_is_no_gpu(no_gpu: None) -> None:
    assert choose_device("auto").place == torch.device("cpu")


@pytest.mark.parametrize("wanted", ["auto", "cuda"])
def test_a_gpu_of_rocm_is_refused_and_not_taken_for_nvidia_s(
    monkeypatch: pytest.MonkeyPatch, two_gpus: None, wanted: str
) -> None:
    monkeypatch.setattr(torch.version, "hip", "6.4.1")  # its GPUs are called cuda, too
    with pytest.raises(DeviceError, match="a GPU of ROCm is not supported"):
        choose_device(wanted)


@pytest.mark.parametrize("wanted", ["auto", "cuda"])
def test_a_gpu_is_taken_where_there_is_one(two_gpus: None, wanted: str) -> None:
    assert choose_device(wanted).place == GPU


def test_a_gpu_is_left_alone_where_the_cpu_is_asked_for(two_gpus: None) -> None:
    assert choose_device("cpu").kind == "cpu"


def test_hardware_is_name_and_memory_of_the_gpu(two_gpus: None) -> None:
    found = Cuda().hardware()
    assert found.key == "nvidia-h200-x1-144gib"  # of two GPUs one is used
    assert (found.kind, found.name, found.count) == ("cuda", "NVIDIA H200", 1)


def test_the_cpu_that_launches_the_kernels_is_recorded(
    monkeypatch: pytest.MonkeyPatch, two_gpus: None
) -> None:
    monkeypatch.setattr(cuda, "cpu_name", lambda: "AMD EPYC 9654")
    assert Cuda().software()["cpu"] == "AMD EPYC 9654"


def test_it_is_recorded_where_throttling_cannot_be_seen(
    monkeypatch: pytest.MonkeyPatch, two_gpus: None
) -> None:
    assert Cuda().software()["throttling"].startswith("cannot be seen: NVML: ")
    monkeypatch.setattr(cuda.NvmlSensor, "blind", lambda _: None)
    assert "throttling" not in Cuda().software()


def test_the_key_of_a_cpu_is_a_folder_name_that_does_not_change() -> None:
    first, again = Cpu().hardware(), Cpu().hardware()
    assert first == again
    assert first.key.startswith("cpu-")
    assert first.key == first.key.lower()
    assert set(first.key) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


def test_software_is_not_part_of_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = Cpu().hardware()
    monkeypatch.setattr(torch, "__version__", "99.0")
    assert Cpu().hardware() == before
    assert {"torch", "python", "cuda", "threads"} <= Cpu().software().keys()


@pytest.mark.parametrize("fails", ["nvmlInit", "nvmlSystemGetDriverVersion"])
def test_a_driver_that_nvml_cannot_name_is_none(
    monkeypatch: pytest.MonkeyPatch, two_gpus: None, fails: str
) -> None:
    def broken() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91900)
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlSystemGetDriverVersion", lambda: "580.1")
    assert Cuda().software()["driver"] == "580.1"
    monkeypatch.setattr(pynvml, fails, broken)
    assert Cuda().software()["driver"] is None


@pytest.mark.parametrize("place", ["meta", "mps"])
def test_a_device_of_which_nothing_is_known_is_refused(place: str) -> None:
    with pytest.raises(DeviceError, match=f"{place}: only cuda and cpu are supported"):
        device_of(torch.device(place))


def test_every_kind_is_a_file_and_a_line(two_gpus: None) -> None:
    devices = [choose_device(kind) for kind in KINDS]
    assert [device.kind for device in devices] == list(KINDS)
    assert all(isinstance(device, Device) for device in devices)


@pytest.mark.parametrize(("wanted", "seen"), [("cpu", ""), ("cuda", None), ("auto", None)])
def test_a_side_on_the_cpu_sees_no_gpu(wanted: str, seen: str | None) -> None:
    environment = environment_of(wanted)
    assert environment.get("CUDA_VISIBLE_DEVICES") == seen
    assert environment["PYTORCH_NVML_BASED_CUDA_CHECK"] == "1"


def test_a_device_that_no_fork_can_use_any_more_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    assert started_devices() == []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    assert started_devices() == ["cuda"]


@pytest.mark.parametrize(
    ("wanted", "size", "scale"),  # of FLOPs
    [
        ("simulated:h100", 256, CARDS["h100"].flop_scale),
        pytest.param("cuda", 4096, 1, marks=pytest.mark.cuda),
    ],
)
def test_events_and_wall_clock_agree_on_a_long_kernel(wanted: str, size: int, scale: int) -> None:
    device = choose_device(wanted)
    clock = device.clock()
    matrix = torch.randn(size, size, device=device.place)
    (matrix @ matrix).sum().item()
    clock.start()
    for _ in range(50):
        matrix @ matrix  # queued, never read
    wall_s, device_s = clock.stop()
    assert device_s is not None
    # The queue outlives the loop: a clock that did not synchronise would see the launches only.
    assert device_s > 50 * size**3 * 2 * scale / 2e15
    assert device_s <= wall_s <= device_s * 1.2 + 1e-3
    choose_device("cpu")
