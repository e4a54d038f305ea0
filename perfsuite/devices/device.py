"""The device: choosing it, and naming its hardware and software.

What a machine cannot tell is None.
"""

import os
import platform
import re
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import pynvml
import torch

_PACKAGES = ("perfsuite", "torch", "torchvision", "numpy", "pytest", "pytest-benchmark")


class DeviceError(RuntimeError):
    """A device that was asked for and is not there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """What baselines are kept by: the accelerator, or the CPU where there is none.

    Attributes:
        key: name of the folder that holds its baselines.
        kind: "cuda" or "cpu".
        name: as the vendor spells it.
        count: visible accelerators, or logical CPUs this process may use.
        memory_bytes: of one accelerator, or None for a CPU, whose memory does not bear on it.
    """

    key: str
    kind: str
    name: str
    count: int
    memory_bytes: int | None

    def __str__(self) -> str:
        return f"{self.count} x {self.name} ({self.key})"


def choose_device(wanted: str) -> torch.device:
    """Return the device for "auto" (CUDA where there is a GPU), "cuda" or "cpu".

    Raises:
        DeviceError: CUDA was asked for and there is none; never a fall-back, never a skip.
    """
    if wanted == "cpu":
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    if wanted == "auto":
        return torch.device("cpu")
    built = torch.version.cuda
    why = "torch sees no GPU" if built else "this torch was built without CUDA"
    raise DeviceError(f"--perf-device {wanted}: {why} (torch {torch.__version__})")


def hardware(device: torch.device) -> Hardware:
    """Return what baselines of `device` are kept by."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        count, memory_bytes = torch.cuda.device_count(), properties.total_memory
        gib = round(memory_bytes / 2**30)
        return Hardware(
            key=_slug(f"{properties.name}-x{count}-{gib}gib"),
            kind="cuda",
            name=properties.name,
            count=count,
            memory_bytes=memory_bytes,
        )
    name, count = _cpu_name(), _usable_cpus()
    key = _slug(f"cpu-{name}-x{count}")
    return Hardware(key=key, kind="cpu", name=name, count=count, memory_bytes=None)


def software(device: torch.device) -> dict[str, Any]:
    """Return the versions that an upgrade may change: recorded and compared, never a key."""
    versions: dict[str, Any] = {package: _version(package) for package in _PACKAGES}
    versions["python"] = platform.python_version()
    versions["system"] = f"{platform.system()} {platform.release()}"
    versions["cuda"] = torch.version.cuda
    versions["cudnn"] = torch.backends.cudnn.version() if device.type == "cuda" else None
    versions["driver"] = _driver() if device.type == "cuda" else None
    versions["cpu_capability"] = torch.backends.cpu.get_cpu_capability()
    versions["threads"] = torch.get_num_threads()
    return versions


def _driver() -> str | None:
    try:
        pynvml.nvmlInit()
        return str(pynvml.nvmlSystemGetDriverVersion())
    except pynvml.NVMLError:
        return None


def _cpu_name() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M)
    except OSError:
        found = None
    return found.group(1).strip() if found else platform.processor() or platform.machine()


def _usable_cpus() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
