"""Which device is used: the one place that lists the kinds there are. It does not import torch."""

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from perfsuite.devices.device import Device

KINDS = {
    "cuda": "Cuda",
    "cpu": "Cpu",
}
"""Kinds of devices by the name of their module, which PyTorch calls them by too, and their
class; `auto` takes the first that is there."""

FORK_ENVIRONMENT = {
    # To ask whether there is a GPU must not start CUDA, or no fork could use it.
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
}
"""Set for a process that is to be forked before it uses a device."""


def choose_device(wanted: str) -> "Device":
    """Return the device for `auto` or a name in KINDS.

    Raises:
        DeviceError: it is not there; never a fall-back, never a skip.
    """
    from perfsuite.devices.device import DeviceError

    if wanted != "auto":
        try:
            return _device(wanted)
        except DeviceError as error:
            raise DeviceError(f"--perf-device {wanted}: {error}") from None
    for kind in KINDS:
        try:
            return _device(kind)
        except DeviceError:
            continue
    raise DeviceError("there is no device at all")


def device_of(place: "torch.device") -> "Device":
    """Return the device on which a tensor lies.

    Raises:
        DeviceError: nothing is known of devices of its kind.
    """
    if place.type not in KINDS:
        from perfsuite.devices.device import DeviceError

        raise DeviceError(f"{place}: only {' and '.join(KINDS)} are supported")
    return _device(place.type, place.index)


def started_devices() -> list[str]:
    """Return the kinds of devices that this process uses in a way that no fork of it can."""
    return [kind for kind in KINDS if getattr(_class(kind), "started", bool)()]


@cache
def _device(kind: str, index: int | None = None) -> "Device":
    device: Device = _class(kind)() if index is None else _class(kind)(index)
    return device


def _class(kind: str) -> Any:
    return getattr(import_module(f"perfsuite.devices.{kind}"), KINDS[kind])
