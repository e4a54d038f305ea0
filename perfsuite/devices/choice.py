"""Which device is used: the one place that lists the kinds there are. It does not import torch."""

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from perfsuite.devices.cards import CARDS

if TYPE_CHECKING:
    import torch

    from perfsuite.devices.device import Device

# Module, which is PyTorch's name of the kind too, and class; `auto` takes the first that is there.
KINDS = {
    "cuda": "Cuda",
    "cpu": "Cpu",
}
SIMULATED = "simulated:"
NAMES = ("auto", *KINDS, *(f"{SIMULATED}{card}" for card in CARDS))
"""What can be asked for."""
_simulated: list["Device"] = []  # that stands for the CPU, which computes for it
# For a process that is forked before it uses a device: to ask whether there is a GPU must not
# start CUDA, or no fork could use it.
FORK_ENVIRONMENT = {"PYTORCH_NVML_BASED_CUDA_CHECK": "1"}
# For a process that computes on the CPU, on a machine with a GPU too: an optimizer asks whether a
# CUDA graph is being captured, and for that CUDA is started, and takes memory of the GPU.
WITHOUT_GPU = {"CUDA_VISIBLE_DEVICES": ""}


def environment_of(wanted: str) -> dict[str, str]:
    """Return what the environment of a process that forks has to say of the device it is to use."""
    return FORK_ENVIRONMENT | (WITHOUT_GPU if wanted == "cpu" else {})


def choose_device(wanted: str) -> "Device":
    """Return the device for one of NAMES; one that is not there is a DeviceError.

    A simulated one is the device of all that lies on the CPU, until another is chosen.
    """
    from perfsuite.devices.device import DeviceError, UnsupportedError

    _simulated.clear()
    if wanted.startswith(SIMULATED):
        _simulated.append(_simulation(wanted.removeprefix(SIMULATED)))
        return _simulated[0]
    if wanted != "auto":
        try:
            return _device(wanted)
        except DeviceError as error:
            raise DeviceError(f"--perf-device {wanted}: {error}") from None
    for kind in KINDS:
        try:
            return _device(kind)
        except UnsupportedError as error:
            raise DeviceError(f"{error}: take another with --perf-device, such as cpu") from None
        except DeviceError:
            continue
    raise DeviceError("there is no device at all")


def device_of(place: "torch.device") -> "Device":
    """Return the device on which a tensor lies; one of an unknown kind is a DeviceError."""
    if place.type not in KINDS:
        from perfsuite.devices.device import DeviceError

        raise DeviceError(f"{place}: only {' and '.join(KINDS)} are supported")
    return _simulated[0] if _simulated and place.type == "cpu" else _device(place.type, place.index)


def device_again(wanted: str, place: "torch.device") -> "Device":
    """Return what `choose_device` found at a place, without a question that would start it."""
    return choose_device(wanted) if wanted.startswith(SIMULATED) else device_of(place)


def started_devices() -> list[str]:
    """Return the kinds of devices that this process uses in a way that no fork of it can."""
    return [kind for kind in KINDS if _class(kind).started()]


def _simulation(card: str) -> "Device":
    from perfsuite.devices.device import DeviceError
    from perfsuite.devices.simulated import Simulated

    if card not in CARDS:
        raise DeviceError(f"no card {card!r} is simulated, only {', '.join(CARDS)}")
    return Simulated(CARDS[card])


@cache
def _device(kind: str, index: int | None = None) -> "Device":
    device: Device = _class(kind)() if index is None else _class(kind)(index)
    return device


def _class(kind: str) -> Any:
    return getattr(import_module(f"perfsuite.devices.{kind}"), KINDS[kind])
