"""NVIDIA GPUs: their names, precisions and synchronisation, and their state by way of NVML."""

import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pynvml
import torch
from torch import Tensor

from perfsuite.devices.accelerator import Accelerator, synchronizing_raises
from perfsuite.devices.device import (
    DeviceError,
    Hardware,
    HostWaitError,
    Sensor,
    UnsupportedError,
    key_of,
)
from perfsuite.devices.host import cpu_name, read_host
from perfsuite.devices.precision import Precision
from perfsuite.judging.blocks import State
from perfsuite.judging.hardware import gpu_key

# The least compute capability.
_NEEDS = {Precision.tf32: (8, 0), Precision.bf16: (8, 0), Precision.fp16: (5, 3)}

# Clocks lowered against the will of whoever runs the machine. The power cap is not among them: a
# large GPU runs into it in all good training, and nothing would be left. Neither is the hardware's
# own slowdown: its bit also stands while clocks change, as they do at both ends of a block, and
# heat and the power brake, which it stands for, have bits of their own.
_SLOWDOWNS = {
    pynvml.nvmlClocksEventReasonSwThermalSlowdown: "software thermal slowdown",
    pynvml.nvmlClocksEventReasonHwThermalSlowdown: "hardware thermal slowdown",
    pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown: "power brake",
}
# For how long each of them has lasted since the driver was loaded, in nanoseconds. A release of
# pynvml may not know these counters yet, nor may a driver.
_COUNTERS = {
    name: getattr(pynvml, f"NVML_FI_DEV_CLOCKS_EVENT_REASON_{counter}", 0)
    for name, counter in (
        ("software thermal slowdown", "SW_THERM_SLOWDOWN"),
        ("hardware thermal slowdown", "HW_THERM_SLOWDOWN"),
        ("power brake", "HW_POWER_BRAKE_SLOWDOWN"),
    )
}
_UNSIGNED = {1: "uiVal", 2: "ulVal", 3: "ullVal"}  # NVML's types of a value, and where each stands
_LEAST_S = 0.1  # over which a difference of energies makes a power: they are counted that often


class Cuda(Accelerator):
    """A GPU of NVIDIA; a DeviceError where there is none."""

    kind = "cuda"
    has_graphs = has_cudnn = True
    collectives = "cuda:nccl"

    def __init__(self, index: int | None = None) -> None:
        if not torch.cuda.is_available():
            built = torch.version.cuda
            why = "torch sees no GPU" if built else "this torch was built without CUDA"
            raise DeviceError(f"{why} (torch {torch.__version__})")
        if torch.version.hip:  # which calls its GPUs cuda, too
            raise UnsupportedError(f"a GPU of ROCm is not supported (torch {torch.__version__})")
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
        # The CPU launches the kernels: where it is the limit, it is what is measured.
        found = {"cudnn": torch.backends.cudnn.version(), "driver": _driver(), "cpu": cpu_name()}
        blind = self.sensor().blind()
        return found if blind is None else found | {"throttling": f"cannot be seen: {blind}"}

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

    def confine(self, limit_bytes: int | None) -> Callable[[], int]:
        self.free_cache()  # what is kept of others is no room of what is to come
        if limit_bytes is not None:
            total = torch.cuda.get_device_properties(self.place).total_memory
            share = min(1.0, limit_bytes / total)
            torch.cuda.set_per_process_memory_fraction(share, self.place)
        torch.cuda.reset_peak_memory_stats(self.place)
        before = torch.cuda.memory_reserved(self.place)
        return lambda: int(torch.cuda.max_memory_reserved(self.place)) - before

    def ran_out(self, error: BaseException) -> bool:
        # cuBLAS and cuDNN say it in their own words.
        return super().ran_out(error) or "ALLOC_FAILED" in str(error)

    @contextmanager
    def beside_capture(self) -> Iterator[None]:
        current, side = torch.cuda.current_stream(self.place), torch.cuda.Stream(self.place)
        side.wait_stream(current)
        with torch.cuda.stream(side):
            yield
        current.wait_stream(side)

    def capture(self, step: Callable[[], Tensor]) -> Callable[[], Tensor]:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(self.place), torch.cuda.graph(graph):
            result = step()

        def replay() -> Tensor:
            graph.replay()
            return result

        return replay

    @contextmanager
    def host_waits_raise(self) -> Iterator[None]:
        before = torch.cuda.get_sync_debug_mode()
        try:
            _set_sync_debug_mode("error")
            with synchronizing_raises():
                yield
        except HostWaitError:
            raise
        except RuntimeError as error:
            if "synchroniz" not in str(error):
                raise
            raise HostWaitError(str(error).splitlines()[0]) from None
        finally:
            _set_sync_debug_mode(before)


def _set_sync_debug_mode(mode: int | str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is a prototype: an error under -W error
        torch.cuda.set_sync_debug_mode(mode)


class NvmlSensor:
    """Reads a GPU through NVML, by its UUID, since NVML does not know CUDA_VISIBLE_DEVICES.

    Of a MIG instance, clocks, heat and power are those of the whole GPU.
    """

    def __init__(self, uuid: str, now: Callable[[], float] = time.monotonic) -> None:
        self._handles: list[Any] = []  # each is asked for what those before it cannot tell
        self._why = ""
        self._now = now
        self._energy: tuple[float, float] | None = None  # when it was read, and what it was, in J
        try:
            pynvml.nvmlInit()  # for as long as the process lives: it costs milliseconds
        except pynvml.NVMLError as error:
            self._why = str(error)
            return
        for kind in ("GPU", "MIG"):
            try:
                handle = pynvml.nvmlDeviceGetHandleByUUID(f"{kind}-{uuid}")
            except pynvml.NVMLError as error:
                self._why = f"this GPU: {error}"
                continue
            self._handles = [handle]
            if kind == "MIG":
                whole = self._ask("nvmlDeviceGetDeviceHandleFromMigDeviceHandle")
                self._handles += [] if whole is None else [whole]
            break

    def blind(self) -> str | None:
        """Return why throttling cannot be seen, None if it can."""
        if not self._handles:
            return f"NVML: {self._why}"
        state = self.read()
        known = (state.slowdown_ns, state.clock_event_reasons, state.thermal_violation_ns)
        return None if known != (None, None, None) else "NVML tells nothing of this GPU's clocks"

    def read(self) -> State:
        # Clocks first: as soon as the GPU is idle they fall.
        sm_mhz = self._ask("nvmlDeviceGetClockInfo", pynvml.NVML_CLOCK_SM)
        memory_mhz = self._ask("nvmlDeviceGetClockInfo", pynvml.NVML_CLOCK_MEM)
        running = self._ask("nvmlDeviceGetComputeRunningProcesses")
        violation = self._ask("nvmlDeviceGetViolationStatus", pynvml.NVML_PERF_POLICY_THERMAL)
        return replace(
            read_host(),
            sm_mhz=sm_mhz,
            memory_mhz=memory_mhz,
            temperature_c=self._ask("nvmlDeviceGetTemperature", pynvml.NVML_TEMPERATURE_GPU),
            power_w=self._power_w(),
            clock_event_reasons=self._ask("nvmlDeviceGetCurrentClocksEventReasons"),
            slowdown_ns=self._slowdown_ns(),
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
            "interconnect": self._interconnect(),
        }

    def _interconnect(self) -> str | None:
        # The highest generation that both ends can do: an idle GPU goes down from it.
        generation = self._ask("nvmlDeviceGetMaxPcieLinkGeneration")
        width = self._ask("nvmlDeviceGetCurrPcieLinkWidth")
        every = range(pynvml.NVML_NVLINK_MAX_LINKS)
        links = sum(self._ask("nvmlDeviceGetNvLinkState", link) == 1 for link in every)
        told = [f"{links} NVLinks"] * (links > 0)
        told += [f"PCIe {generation} x{width}"] * (None not in (generation, width))
        return ", ".join(told) or None

    def held_back(self, before: State, after: State) -> tuple[str, ...]:
        # What is counted is known of the whole block, a bit of its ends alone.
        then, now = before.slowdown_ns or {}, after.slowdown_ns or {}
        counted = then.keys() & now.keys()
        bits = (before.clock_event_reasons or 0) | (after.clock_event_reasons or 0)
        reasons = [
            name
            for bit, name in _SLOWDOWNS.items()
            if (now[name] > then[name] if name in counted else bits & bit)
        ]
        heat = before.thermal_violation_ns, after.thermal_violation_ns
        if heat[0] is not None and heat[1] is not None and heat[1] > heat[0] and not reasons:
            reasons.append("thermal violation")
        return tuple(reasons)

    def _power_w(self) -> float | None:
        """Return the mean since the last reading, or that of now where energy is not counted."""
        energy_mj, now_s = self._ask("nvmlDeviceGetTotalEnergyConsumption"), self._now()
        last, self._energy = self._energy, None if energy_mj is None else (now_s, energy_mj / 1e3)
        if last is not None and self._energy is not None and now_s - last[0] >= _LEAST_S:
            return (self._energy[1] - last[1]) / (now_s - last[0])
        power_mw = self._ask("nvmlDeviceGetPowerUsage")
        return None if power_mw is None else float(power_mw / 1e3)

    def _slowdown_ns(self) -> dict[str, int] | None:
        known = {name: counter for name, counter in _COUNTERS.items() if counter}
        values = self._ask("nvmlDeviceGetFieldValues", list(known.values())) if known else None
        found = {
            name: int(getattr(each.value, _UNSIGNED[each.valueType]))
            for name, each in zip(known, values or (), strict=False)
            if each.nvmlReturn == pynvml.NVML_SUCCESS and each.valueType in _UNSIGNED
        }
        return found or None

    def _ask(self, query: str, *arguments: Any) -> Any:
        for handle in self._handles:
            try:
                return getattr(pynvml, query)(handle, *arguments)
            except (pynvml.NVMLError, AttributeError):  # a release may lack the function itself
                continue
        return None


def _driver() -> str | None:
    try:
        pynvml.nvmlInit()
        return str(pynvml.nvmlSystemGetDriverVersion())
    except pynvml.NVMLError:
        return None
