"""A GPU that is not there, by what NVML would tell of it."""

import os
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Answer for a GPU that is not there; return the names that it was asked for by."""
    asked: list[str] = []

    def handle(name: str) -> str:
        asked.append(name)
        return name

    def fields(_: str, wanted: list[int]) -> list[Any]:
        # The first is given as an unsigned int, the others as unsigned long longs.
        value = SimpleNamespace(uiVal=5, ullVal=6)
        return [
            SimpleNamespace(nvmlReturn=0, valueType=1 if number == 0 else 3, value=value)
            for number, _ in enumerate(wanted)
        ]

    processes = [SimpleNamespace(pid=pid) for pid in (os.getpid(), 1, 2)]
    answers = {
        "nvmlInit": lambda: None,
        "nvmlDeviceGetHandleByUUID": handle,
        "nvmlDeviceGetClockInfo": lambda _, kind: 1980 + kind,
        "nvmlDeviceGetTemperature": lambda _, __: 41,
        "nvmlDeviceGetPowerUsage": lambda _: 123_000,
        "nvmlDeviceGetTotalEnergyConsumption": lambda _: 1_000_000,
        "nvmlDeviceGetCurrentClocksEventReasons": lambda _: 4,
        "nvmlDeviceGetFieldValues": fields,
        "nvmlDeviceGetViolationStatus": lambda _, __: SimpleNamespace(violationTime=7),
        "nvmlDeviceGetComputeRunningProcesses": lambda _: processes,
    }
    for name, answer in answers.items():
        monkeypatch.setattr(pynvml, name, answer)
    return asked
