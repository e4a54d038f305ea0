"""NVIDIA GPUs: their names, precisions and synchronisation, and their state by way of NVML."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pynvml
import torch

from perfsuite.devices.accelerator import Accelerator
from perfsuite.devices.device import DeviceError, Hardware, HostWaitError, Sensor, key_of, read_host
from perfsuite.devices.precision import Precision
from perfsuite.judging.blocks import State
from perfsuite.judging.hardware import gpu_key

# The least compute capability.
_NEEDS = {Precision.tf32: (8, 0), Precision.bf16: (8, 0), Precision.fp16: (5, 3)}

# Clocks lowered against the will of whoever runs the machine. The power cap is not among them:
# a large GPU runs into it in all good training, and nothing would be left.
_SLOWDOWNS = {
    pynvml.nvmlClocksEventReasonHwSlowdown: "hardware slowdown",
    pynvml.nvmlClocksEventReasonSwThermalSlowdown: "software thermal slowdown",
    pynvml.nvmlClocksEventReasonHwThermalSlowdown: "hardware thermal slowdown",
    pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown: "power brake",
}


class Cuda(Accelerator):
    """A GPU of NVIDIA; a DeviceError where there is none."""

    kind = "cuda"

    def __init__(self, index: int | None = None) -> None:
        if not torch.cuda.is_available():
            built = torch.version.cuda
            why = "torch sees no GPU" if built else "this torch was built without CUDA"
            raise DeviceError(f"{why} (torch {torch.__version__})")
        super().__init__(index)

    @staticmethod
    def started() -> bool:
        return bool(torch.cuda.is_initialized())

    def hardware(self) -> Hardware:
        properties = torch.cuda.get_device_properties(self.place)
        return Hardware(
            key=gpu_key(key_of(properties.name), properties.total_memory / 2**30),
            kind=self.kind,
            name=properties.name,
            count=1,
            memory_bytes=properties.total_memory,
        )

    def versions(self) -> dict[str, Any]:
        return {"cudnn": torch.backends.cudnn.version(), "driver": _driver()}

    def facts(self) -> dict[str, Any]:
        return {**super().facts(), **self._sensor().facts()}

    def why_not(self, precision: Precision) -> str | None:
        found, least = torch.cuda.get_device_capability(self.place), _NEEDS.get(precision, (0, 0))
        if found >= least:
            return None
        return (
            f"{torch.cuda.get_device_name(self.place)}: needs compute capability"
            f" {least[0]}.{least[1]}, this GPU has {found[0]}.{found[1]}"
        )

    def sensor(self) -> Sensor:
        return self._sensor()

    def _sensor(self) -> "NvmlSensor":
        return NvmlSensor(str(torch.cuda.get_device_properties(self.place).uuid))

    @contextmanager
    def host_waits_raise(self) -> Iterator[None]:
        before = torch.cuda.get_sync_debug_mode()
        try:
            torch.cuda.set_sync_debug_mode("error")
            yield
        except RuntimeError as error:
            if "synchroniz" not in str(error):
                raise
            raise HostWaitError(str(error).splitlines()[0]) from None
        finally:
            torch.cuda.set_sync_debug_mode(before)


class NvmlSensor:
    """Reads a GPU through NVML, by its UUID, since NVML does not know CUDA_VISIBLE_DEVICES."""

    def __init__(self, uuid: str) -> None:
        self._handle: Any = None
        try:
            pynvml.nvmlInit()  # for as long as the process lives: it costs milliseconds
            self._handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
        except pynvml.NVMLError:
            pass  # no NVML, or it cannot see this GPU: everything stays unknown

    def read(self) -> State:
        power_mw = self._ask("nvmlDeviceGetPowerUsage")
        running = self._ask("nvmlDeviceGetComputeRunningProcesses")
        violation = self._ask("nvmlDeviceGetViolationStatus", pynvml.NVML_PERF_POLICY_THERMAL)
        return replace(
            read_host(),
            sm_mhz=self._ask("nvmlDeviceGetClockInfo", pynvml.NVML_CLOCK_SM),
            memory_mhz=self._ask("nvmlDeviceGetClockInfo", pynvml.NVML_CLOCK_MEM),
            temperature_c=self._ask("nvmlDeviceGetTemperature", pynvml.NVML_TEMPERATURE_GPU),
            power_w=None if power_mw is None else power_mw / 1e3,
            clock_event_reasons=self._ask("nvmlDeviceGetCurrentClocksEventReasons"),
            thermal_violation_ns=None if violation is None else int(violation.violationTime),
            # In a container our own process may go by another number, and counts as another.
            other_processes=None
            if running is None
            else len({e.pid for e in running} - {os.getpid()}),
        )

    def facts(self) -> dict[str, Any]:
        """Return how the GPU is set up; clocks that are locked NVML does not tell."""
        mig, ecc = self._ask("nvmlDeviceGetMigMode"), self._ask("nvmlDeviceGetEccMode")
        limit_mw = self._ask("nvmlDeviceGetEnforcedPowerLimit")
        return {
            "MIG mode": None if mig is None else mig[0],
            "ECC": None if ecc is None else ecc[0],
            "power limit in W": None if limit_mw is None else limit_mw / 1e3,
            "application clock in MHz": self._ask(
                "nvmlDeviceGetApplicationsClock", pynvml.NVML_CLOCK_SM
            ),
            "persistence mode": self._ask("nvmlDeviceGetPersistenceMode"),
        }

    def held_back(self, before: State, after: State) -> tuple[str, ...]:
        bits = (before.clock_event_reasons or 0) | (after.clock_event_reasons or 0)
        reasons = [name for bit, name in _SLOWDOWNS.items() if bits & bit]
        then, now = before.thermal_violation_ns, after.thermal_violation_ns
        if then is not None and now is not None and now > then and not reasons:
            reasons.append("thermal violation")
        return tuple(reasons)

    def _ask(self, query: str, *arguments: int) -> Any:
        if self._handle is None:
            return None
        try:
            return getattr(pynvml, query)(self._handle, *arguments)
        except (pynvml.NVMLError, AttributeError):  # a release may lack the function itself
            return None


def _driver() -> str | None:
    try:
        pynvml.nvmlInit()
        return str(pynvml.nvmlSystemGetDriverVersion())
    except pynvml.NVMLError:
        return None
