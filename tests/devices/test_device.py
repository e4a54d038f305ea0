"""The device: what is asked for is there or an error, and what cannot be known is None."""

from types import SimpleNamespace

import pynvml
import pytest
import torch

from perfsuite.devices.device import DeviceError, choose_device, hardware, software

CPU = torch.device("cpu")
CUDA = torch.device("cuda", 0)


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


def test_cuda_without_a_gpu_is_an_error_and_never_a_fall_back(no_gpu: None) -> None:
    with pytest.raises(DeviceError, match=r"--perf-device cuda: .* \(torch "):
        choose_device("cuda")


def test_auto_takes_the_cpu_where_there_is_no_gpu(no_gpu: None) -> None:
    assert choose_device("auto") == CPU


@pytest.mark.parametrize("wanted", ["auto", "cuda"])
def test_a_gpu_is_taken_where_there_is_one(two_gpus: None, wanted: str) -> None:
    assert choose_device(wanted) == CUDA


def test_a_gpu_is_left_alone_where_the_cpu_is_asked_for(two_gpus: None) -> None:
    assert choose_device("cpu") == CPU


def test_hardware_is_name_count_and_memory_of_the_gpu(two_gpus: None) -> None:
    found = hardware(CUDA)
    assert found.key == "nvidia-h200-x2-140gib"
    assert (found.kind, found.name, found.count) == ("cuda", "NVIDIA H200", 2)


def test_the_key_of_a_cpu_is_a_folder_name_that_does_not_change() -> None:
    first, again = hardware(CPU), hardware(CPU)
    assert first == again
    assert first.key.startswith("cpu-")
    assert first.key == first.key.lower()
    assert set(first.key) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


def test_software_is_not_part_of_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = hardware(CPU)
    monkeypatch.setattr(torch, "__version__", "99.0")
    assert hardware(CPU) == before
    assert {"torch", "python", "cuda", "cudnn", "driver"} <= software(CPU).keys()


@pytest.mark.parametrize("fails", ["nvmlInit", "nvmlSystemGetDriverVersion"])
def test_a_driver_that_nvml_cannot_name_is_none(
    monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    def broken() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlSystemGetDriverVersion", lambda: "580.1")
    assert software(CUDA)["driver"] == "580.1"
    monkeypatch.setattr(pynvml, fails, broken)
    assert software(CUDA)["driver"] is None
