"""A performance-regression suite for PyTorch mixed-precision training.

Public names are imported on first use, so that loading the pytest plugin, which happens in
every pytest session of an environment, does not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perfsuite.devices.precision import Precision, PrecisionError
    from perfsuite.training.cfg import TUTORIAL_CFG, CfgError
    from perfsuite.training.model import build_model
    from perfsuite.training.step import TrainStep
    from perfsuite.training.workload import Workload

__all__ = [
    "TUTORIAL_CFG",
    "CfgError",
    "Precision",
    "PrecisionError",
    "TrainStep",
    "Workload",
    "build_model",
]

_HOMES = {
    "TUTORIAL_CFG": "training.cfg",
    "CfgError": "training.cfg",
    "Precision": "devices.precision",
    "PrecisionError": "devices.precision",
    "TrainStep": "training.step",
    "Workload": "training.workload",
    "build_model": "training.model",
}


def __getattr__(name: str) -> Any:
    """Import a public name from the module that defines it."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """Return the public names."""
    return __all__
