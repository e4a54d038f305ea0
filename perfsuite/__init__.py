"""A performance-regression suite for PyTorch mixed-precision training.

Public names are imported on first use, so that loading the pytest plugin, which happens in
every pytest session of an environment, does not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perfsuite.devices.precision import Precision, PrecisionError
    from perfsuite.judging.estimates import Estimate, median_s
    from perfsuite.judging.gates import Verdict, at_least, at_most, finite
    from perfsuite.judging.interleaving import Duet
    from perfsuite.measuring.bench import Bench
    from perfsuite.measuring.convergence import (
        SeedPair,
        TrainingRun,
        judge_twice,
        train,
        train_pairs,
    )
    from perfsuite.measuring.memory import activation_bytes
    from perfsuite.probes.registry import PROBES, judge_probes, run_probe
    from perfsuite.training.cfg import TUTORIAL_CFG, CfgError
    from perfsuite.training.data import mnist_folder, mnist_loader
    from perfsuite.training.model import build_model
    from perfsuite.training.step import TrainStep
    from perfsuite.training.workload import WORKLOADS, Arm, Workload

__all__ = [
    "PROBES",
    "TUTORIAL_CFG",
    "WORKLOADS",
    "Arm",
    "Bench",
    "CfgError",
    "Duet",
    "Estimate",
    "Precision",
    "PrecisionError",
    "SeedPair",
    "TrainStep",
    "TrainingRun",
    "Verdict",
    "Workload",
    "activation_bytes",
    "at_least",
    "at_most",
    "build_model",
    "finite",
    "judge_probes",
    "judge_twice",
    "median_s",
    "mnist_folder",
    "mnist_loader",
    "run_probe",
    "train",
    "train_pairs",
]

_HOMES = {
    "training.cfg": ("TUTORIAL_CFG", "CfgError"),
    "training.model": ("build_model",),
    "training.step": ("TrainStep",),
    "training.data": ("mnist_folder", "mnist_loader"),
    "training.workload": ("WORKLOADS", "Arm", "Workload"),
    "devices.precision": ("Precision", "PrecisionError"),
    "judging.estimates": ("Estimate", "median_s"),
    "judging.gates": ("Verdict", "at_least", "at_most", "finite"),
    "judging.interleaving": ("Duet",),
    "measuring.bench": ("Bench",),
    "measuring.convergence": ("SeedPair", "TrainingRun", "judge_twice", "train", "train_pairs"),
    "measuring.memory": ("activation_bytes",),
    "probes.registry": ("PROBES", "judge_probes", "run_probe"),
}


def __getattr__(name: str) -> Any:
    """Import a public name from the module that defines it."""
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the public names."""
    return __all__
