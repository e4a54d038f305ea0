"""The state of a GPU: what NVML tells is kept, what it cannot tell is None."""

import os
from types import SimpleNamespace

import psutil
import pynvml
import pytest
from fakes import state

from perfsuite.devices.choice import choose_device
from perfsuite.devices.cuda import NvmlSensor
from perfsuite.devices.device import read_host

UUID = "00000000-0000-0000-0000-000000000000"
READINGS = {
    "sm_mhz": "nvmlDeviceGetClockInfo",
    "temperature_c": "nvmlDeviceGetTemperature",
    "power_w": "nvmlDeviceGetPowerUsage",
    "clock_event_reasons": "nvmlDeviceGetCurrentClocksEventReasons",
    "thermal_violation_ns": "nvmlDeviceGetViolationStatus",
    "other_processes": "nvmlDeviceGetComputeRunningProcesses",
}


def broken(*_: object) -> None:
    raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Answer for a GPU that is not there; return the names that it was asked for by."""
    asked: list[str] = []

    def handle(name: str) -> str:
        asked.append(name)
        return name

    processes = [SimpleNamespace(pid=pid) for pid in (os.getpid(), 1, 2)]
    answers = {
        "nvmlInit": lambda: None,
        "nvmlDeviceGetHandleByUUID": handle,
        "nvmlDeviceGetClockInfo": lambda _, kind: 1980 + kind,
        "nvmlDeviceGetTemperature": lambda _, __: 41,
        "nvmlDeviceGetPowerUsage": lambda _: 123_000,
        "nvmlDeviceGetCurrentClocksEventReasons": lambda _: 4,
        "nvmlDeviceGetViolationStatus": lambda _, __: SimpleNamespace(violationTime=7),
        "nvmlDeviceGetComputeRunningProcesses": lambda _: processes,
    }
    for name, answer in answers.items():
        monkeypatch.setattr(pynvml, name, answer)
    return asked


def test_what_nvml_tells_is_kept(gpu: list[str]) -> None:
    found = NvmlSensor(UUID).read()
    assert found.sm_mhz == 1980 + pynvml.NVML_CLOCK_SM
    assert found.memory_mhz == 1980 + pynvml.NVML_CLOCK_MEM
    assert (found.temperature_c, found.power_w, found.clock_event_reasons) == (41, 123.0, 4)
    assert (found.thermal_violation_ns, found.other_processes) == (7, 2)
    assert found.load_1min is not None
    assert gpu == [f"GPU-{UUID}"]


def test_nvml_is_started_once_and_not_for_every_reading(
    gpu: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sensor = NvmlSensor(UUID)
    monkeypatch.setattr(pynvml, "nvmlInit", broken)
    assert sensor.read().sm_mhz is not None


@pytest.mark.parametrize(("field", "query"), READINGS.items())
def test_what_one_query_cannot_tell_is_none_and_the_rest_is_kept(
    gpu: list[str], monkeypatch: pytest.MonkeyPatch, field: str, query: str
) -> None:
    monkeypatch.setattr(pynvml, query, broken)
    found = NvmlSensor(UUID).read()
    assert getattr(found, field) is None
    assert [name for name in READINGS if getattr(found, name) is None] == [field]


@pytest.mark.parametrize("fails", ["nvmlInit", "nvmlDeviceGetHandleByUUID"])
def test_without_nvml_everything_about_the_gpu_is_unknown(
    gpu: list[str], monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    monkeypatch.setattr(pynvml, fails, broken)
    sensor = NvmlSensor(UUID)
    found = sensor.read()
    assert {getattr(found, name) for name in READINGS} == {None}
    assert sensor.held_back(found, found) == ()


@pytest.mark.parametrize("query", ["getloadavg", "cpu_freq"])
@pytest.mark.parametrize("error", [OSError, NotImplementedError, AttributeError])
def test_what_the_host_cannot_tell_is_none(
    monkeypatch: pytest.MonkeyPatch, query: str, error: type[Exception]
) -> None:
    def unable() -> None:
        raise error

    monkeypatch.setattr(psutil, query, unable)
    found = read_host()
    assert None in (found.load_1min, found.cpu_mhz)


def test_a_machine_that_knows_no_frequency_says_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "cpu_freq", lambda: None)
    assert read_host().cpu_mhz is None


@pytest.mark.parametrize(
    ("bits", "reasons"),
    [
        (0x0, ()),
        (0x1, ()),  # idle
        (0x4, ()),  # the power cap, into which all good training runs
        (0x8, ("hardware slowdown",)),
        (0x20, ("software thermal slowdown",)),
        (0x40 | 0x4, ("hardware thermal slowdown",)),
        (0x80, ("power brake",)),
    ],
)
def test_clocks_lowered_against_the_users_will_are_throttling(
    gpu: list[str], bits: int, reasons: tuple[str, ...]
) -> None:
    sensor, calm = NvmlSensor(UUID), state(clock_event_reasons=0)
    assert sensor.held_back(calm, state(clock_event_reasons=bits)) == reasons
    assert sensor.held_back(state(clock_event_reasons=bits), calm) == reasons


def test_throttling_that_came_and_went_within_a_block_is_seen_by_its_counter(
    gpu: list[str],
) -> None:
    sensor = NvmlSensor(UUID)
    before, after = (state(clock_event_reasons=0, thermal_violation_ns=ns) for ns in (5, 9))
    assert sensor.held_back(before, after) == ("thermal violation",)
    assert sensor.held_back(before, before) == ()
    assert sensor.held_back(before, state(clock_event_reasons=0)) == ()


def test_how_a_gpu_is_set_up_is_told_as_far_as_it_is_known(
    gpu: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = {
        "nvmlDeviceGetMigMode": lambda _: [0, 1],  # now, and after the next reset
        "nvmlDeviceGetEccMode": broken,
        "nvmlDeviceGetEnforcedPowerLimit": lambda _: 700_000,
        "nvmlDeviceGetApplicationsClock": lambda _, __: 1980,
        "nvmlDeviceGetPersistenceMode": lambda _: 1,
    }
    for name, answer in answers.items():
        monkeypatch.setattr(pynvml, name, answer)
    assert NvmlSensor(UUID).facts() == {
        "MIG mode": 0,
        "ECC": None,
        "power limit in W": 700.0,
        "application clock in MHz": 1980,
        "persistence mode": 1,
    }


@pytest.mark.cuda
def test_a_real_gpu_tells_its_clocks() -> None:
    device = choose_device("cuda")
    assert device.hardware().memory_bytes
    found = device.sensor().read()
    assert found.sm_mhz is not None
    assert found.power_w is not None
    assert device.software()["driver"]
