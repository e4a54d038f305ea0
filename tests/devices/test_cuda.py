"""The state of a GPU: what NVML tells is kept, what it cannot tell is None."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import psutil
import pynvml
import pytest
from fakes import state

from perfsuite.devices.choice import choose_device
from perfsuite.devices.cuda import NvmlSensor

UUID = "00000000-0000-0000-0000-000000000000"
READINGS = {
    "sm_mhz": "nvmlDeviceGetClockInfo",
    "temperature_c": "nvmlDeviceGetTemperature",
    "power_w": "nvmlDeviceGetPowerUsage",
    "clock_event_reasons": "nvmlDeviceGetCurrentClocksEventReasons",
    "slowdown_ns": "nvmlDeviceGetFieldValues",
    "thermal_violation_ns": "nvmlDeviceGetViolationStatus",
    "other_processes": "nvmlDeviceGetComputeRunningProcesses",
}


def broken(*_: object) -> None:
    raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)


def test_what_nvml_tells_is_kept(gpu: list[str]) -> None:
    found = NvmlSensor(UUID).read()
    assert found.sm_mhz == 1980 + pynvml.NVML_CLOCK_SM
    assert found.memory_mhz == 1980 + pynvml.NVML_CLOCK_MEM
    assert (found.temperature_c, found.power_w, found.clock_event_reasons) == (41, 123.0, 4)
    assert (found.thermal_violation_ns, found.other_processes) == (7, 2)
    assert found.slowdown_ns == {
        "software thermal slowdown": 5,
        "hardware thermal slowdown": 6,
        "power brake": 6,
    }
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


def answering(monkeypatch: pytest.MonkeyPatch, prefix: str) -> None:
    """Let NVML know the GPU by a UUID that starts so, and by no other."""

    def handle(name: str) -> str:
        if not name.startswith(prefix):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return name

    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByUUID", handle)


def only_of(handle: str, query: Callable[..., Any]) -> Callable[..., Any]:
    """Return a query that one handle answers and the others do not."""
    return lambda asked, *rest: query(asked, *rest) if asked == handle else broken()


def test_an_instance_of_a_gpu_is_found_and_its_clocks_are_the_whole_gpus(
    gpu: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, "MIG-")
    monkeypatch.setattr(pynvml, "nvmlDeviceGetDeviceHandleFromMigDeviceHandle", lambda _: "whole")
    for name in ("nvmlDeviceGetClockInfo", "nvmlDeviceGetFieldValues"):
        monkeypatch.setattr(pynvml, name, only_of("whole", getattr(pynvml, name)))
    processes = only_of(f"MIG-{UUID}", lambda _: [SimpleNamespace(pid=1)])
    monkeypatch.setattr(pynvml, "nvmlDeviceGetComputeRunningProcesses", processes)
    sensor = NvmlSensor(UUID)
    found = sensor.read()
    assert (found.sm_mhz, found.other_processes) == (1980 + pynvml.NVML_CLOCK_SM, 1)
    assert found.slowdown_ns is not None
    assert sensor.blind() is None


def test_an_instance_without_permission_for_the_whole_gpu_cannot_see_throttling(
    gpu: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, "MIG-")
    monkeypatch.setattr(pynvml, "nvmlDeviceGetDeviceHandleFromMigDeviceHandle", broken)
    for name in set(READINGS.values()) - {"nvmlDeviceGetComputeRunningProcesses"}:
        monkeypatch.setattr(pynvml, name, broken)
    assert NvmlSensor(UUID).blind() == "NVML tells nothing of this GPU's clocks"


@pytest.mark.parametrize(
    ("query", "code", "said"),
    [
        ("nvmlInit", pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, "NVML: NVML Shared Library Not Found"),
        ("nvmlInit", pynvml.NVML_ERROR_DRIVER_NOT_LOADED, "NVML: Driver Not Loaded"),
        (
            "nvmlDeviceGetHandleByUUID",
            pynvml.NVML_ERROR_NO_PERMISSION,
            "NVML: this GPU: Insufficient Permissions",
        ),
    ],
)
def test_it_is_told_why_throttling_cannot_be_seen(
    gpu: list[str], monkeypatch: pytest.MonkeyPatch, query: str, code: int, said: str
) -> None:
    def refused(*_: object) -> None:
        raise pynvml.NVMLError(code)

    assert NvmlSensor(UUID).blind() is None
    monkeypatch.setattr(pynvml, query, refused)
    assert NvmlSensor(UUID).blind() == said


def test_power_is_the_mean_since_the_last_reading(
    gpu: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s, energy_mj = 0.0, 1_000_000
    monkeypatch.setattr(pynvml, "nvmlDeviceGetTotalEnergyConsumption", lambda _: energy_mj)
    sensor = NvmlSensor(UUID, lambda: now_s)
    assert sensor.read().power_w == 123  # as it is now: there is nothing to hold it against
    now_s, energy_mj = 2.0, 2_400_000
    assert sensor.read().power_w == 700
    now_s = 2.01
    assert sensor.read().power_w == 123  # too soon for the counter
    monkeypatch.setattr(pynvml, "nvmlDeviceGetTotalEnergyConsumption", broken)
    now_s = 9.0
    assert sensor.read().power_w == 123


def test_clocks_are_read_before_anything_else(
    gpu: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []

    def note(name: str) -> None:
        answer = getattr(pynvml, name)

        def noted(*asked: object) -> object:
            order.append(name)
            return answer(*asked)

        monkeypatch.setattr(pynvml, name, noted)

    sensor = NvmlSensor(UUID)
    for name in set(READINGS.values()):
        note(name)

    def load() -> tuple[float, ...]:
        order.append("host")
        return (0.0,)

    monkeypatch.setattr(psutil, "getloadavg", load)
    sensor.read()
    assert order[:2] == ["nvmlDeviceGetClockInfo"] * 2
    assert "host" in order


@pytest.mark.parametrize(
    ("bits", "reasons"),
    [
        (0x0, ()),
        (0x1, ()),  # idle
        (0x4, ()),  # the power cap, into which all good training runs
        (0x8, ()),  # stands while clocks change too; heat and power brake have their own bits
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


COUNTED = {"software thermal slowdown": 0, "hardware thermal slowdown": 10, "power brake": 20}


@pytest.mark.parametrize("name", COUNTED)
def test_throttling_that_came_and_went_within_a_block_is_counted(gpu: list[str], name: str) -> None:
    sensor = NvmlSensor(UUID)
    before = state(clock_event_reasons=0, slowdown_ns=COUNTED)
    after = state(clock_event_reasons=0, slowdown_ns=COUNTED | {name: COUNTED[name] + 1})
    assert sensor.held_back(before, after) == (name,)
    assert sensor.held_back(after, after) == ()


def test_a_bit_at_an_end_says_nothing_where_the_block_itself_is_counted(gpu: list[str]) -> None:
    sensor = NvmlSensor(UUID)
    known = {"software thermal slowdown": 5}
    ends = state(clock_event_reasons=0x20 | 0x80, slowdown_ns=known)
    assert sensor.held_back(ends, ends) == ("power brake",)  # which is not counted here
    assert sensor.held_back(ends, state(clock_event_reasons=0x20)) == (
        "software thermal slowdown",
        "power brake",
    )


@pytest.mark.parametrize("answer", ["error", "type", "missing"])
def test_a_counter_that_a_driver_does_not_have_is_not_counted(
    gpu: list[str], monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    value = SimpleNamespace(ullVal=7)
    known = SimpleNamespace(nvmlReturn=0, valueType=3, value=value)
    unknown = {
        "error": SimpleNamespace(nvmlReturn=3, valueType=3, value=value),
        "type": SimpleNamespace(nvmlReturn=0, valueType=0, value=value),
    }.get(answer)
    values = [known, *([unknown] * 2 if unknown else ())]
    monkeypatch.setattr(pynvml, "nvmlDeviceGetFieldValues", lambda *_: values)
    assert NvmlSensor(UUID).read().slowdown_ns == {"software thermal slowdown": 7}


def test_a_thermal_violation_is_seen_by_its_counter(
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
        "nvmlDeviceGetMaxPcieLinkGeneration": lambda _: 5,
        "nvmlDeviceGetCurrPcieLinkWidth": lambda _: 16,
        "nvmlDeviceGetNvLinkState": broken,
    }
    for name, answer in answers.items():
        monkeypatch.setattr(pynvml, name, answer)
    assert NvmlSensor(UUID).facts() == {
        "MIG mode": 0,
        "ECC": None,
        "power limit in W": 700.0,
        "application clock in MHz": 1980,
        "persistence mode": 1,
        "interconnect": "PCIe 5 x16",
    }


@pytest.mark.parametrize(
    ("active", "pcie", "told"),
    [(18, 5, "18 NVLinks, PCIe 5 x16"), (4, None, "4 NVLinks"), (0, None, None)],
)
def test_nvlinks_that_work_are_counted(
    active: int, pcie: int | None, told: str | None, gpu: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def state(_: str, link: int) -> int:
        return int(link < active)

    monkeypatch.setattr(pynvml, "nvmlDeviceGetNvLinkState", state)
    for name, told_by_nvml in (("MaxPcieLinkGeneration", pcie), ("CurrPcieLinkWidth", pcie and 16)):
        monkeypatch.setattr(pynvml, f"nvmlDeviceGet{name}", lambda _, value=told_by_nvml: value)
    assert NvmlSensor(UUID).facts()["interconnect"] == told


@pytest.mark.cuda
def test_a_real_gpu_tells_its_clocks() -> None:
    device = choose_device("cuda")
    assert device.hardware().memory_bytes
    found = device.sensor().read()
    assert found.sm_mhz is not None
    assert found.power_w is not None
    assert device.software()["driver"]
