"""The machine's state around what is timed: clocks, power, throttling, load, other processes.

Read between blocks, never inside one, and never changed. What a machine cannot tell is None.
"""

import os
from collections.abc import Callable
from typing import Any, Protocol

import psutil
import pynvml
import torch

from perfsuite.judging.blocks import State

# Clocks lowered against the will of whoever runs the machine. The power cap is not among them:
# a large GPU runs into it in all good training, and nothing would be left.
_SLOWDOWNS = {
    pynvml.nvmlClocksEventReasonHwSlowdown: "hardware slowdown",
    pynvml.nvmlClocksEventReasonSwThermalSlowdown: "software thermal slowdown",
    pynvml.nvmlClocksEventReasonHwThermalSlowdown: "hardware thermal slowdown",
    pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown: "power brake",
}


class Sensor(Protocol):
    """Reads the machine's state."""

    def __call__(self) -> State:
        """Return the state as it is now."""


def throttled(before: State, after: State) -> tuple[str, ...]:
    """Return why a GPU was held back between two readings; empty if it was not, or none can say."""
    bits = (before.clock_event_reasons or 0) | (after.clock_event_reasons or 0)
    reasons = [name for bit, name in _SLOWDOWNS.items() if bits & bit]
    then, now = before.thermal_violation_ns, after.thermal_violation_ns
    if then is not None and now is not None and now > then and not reasons:
        reasons.append("thermal violation")
    return tuple(reasons)


def read_host() -> State:
    """Return the state of a machine that is timed on its CPU."""
    load = _asked(psutil.getloadavg)
    frequency = _asked(psutil.cpu_freq)
    return State(
        load_1min=None if load is None else load[0],
        cpu_mhz=None if frequency is None else float(frequency.current),
    )


class NvmlSensor:
    """Reads a GPU through NVML.

    Args:
        uuid: of the GPU, as torch and NVML both spell it. An index would not do: NVML does not
            know of CUDA_VISIBLE_DEVICES.
    """

    def __init__(self, uuid: str) -> None:
        self._handle: Any = None
        try:
            pynvml.nvmlInit()  # for as long as the process lives: it costs milliseconds
            self._handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
        except pynvml.NVMLError:
            pass  # no NVML, or it cannot see this GPU: everything stays unknown

    def __call__(self) -> State:
        """Return the GPU's state and the host's."""
        host = read_host()
        power_mw = self._ask("nvmlDeviceGetPowerUsage")
        running = self._ask("nvmlDeviceGetComputeRunningProcesses")
        violation = self._ask("nvmlDeviceGetViolationStatus", pynvml.NVML_PERF_POLICY_THERMAL)
        return State(
            load_1min=host.load_1min,
            cpu_mhz=host.cpu_mhz,
            sm_mhz=self._ask("nvmlDeviceGetClockInfo", pynvml.NVML_CLOCK_SM),
            memory_mhz=self._ask("nvmlDeviceGetClockInfo", pynvml.NVML_CLOCK_MEM),
            temperature_c=self._ask("nvmlDeviceGetTemperature", pynvml.NVML_TEMPERATURE_GPU),
            power_w=None if power_mw is None else power_mw / 1e3,
            clock_event_reasons=self._ask("nvmlDeviceGetCurrentClocksEventReasons"),
            thermal_violation_ns=None if violation is None else int(violation.violationTime),
            # In a container our own process may go by another number, and counts as another.
            other_processes=(
                None if running is None else len({each.pid for each in running} - {os.getpid()})
            ),
        )

    def _ask(self, query: str, *arguments: int) -> Any:
        if self._handle is None:
            return None
        try:
            return getattr(pynvml, query)(self._handle, *arguments)
        except (pynvml.NVMLError, AttributeError):  # a release may lack the function itself
            return None


def sensor_for(device: torch.device) -> Sensor:
    """Return what reads the state that bears on `device`."""
    if device.type == "cuda":
        return NvmlSensor(str(torch.cuda.get_device_properties(device).uuid))
    return read_host


def _asked(query: Callable[[], Any]) -> Any:
    try:
        return query()
    except (OSError, NotImplementedError, AttributeError):  # by operating system
        return None
