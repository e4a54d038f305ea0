"""A performance-regression suite for PyTorch mixed-precision training.

Public names are imported on first use, so that loading the pytest plugin, which happens in
every pytest session of an environment, does not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perfsuite.devices.precision import Precision as Precision
    from perfsuite.devices.precision import PrecisionError as PrecisionError
    from perfsuite.judging.claims import judge_claims as judge_claims
    from perfsuite.judging.estimates import Estimate as Estimate
    from perfsuite.judging.estimates import median_s as median_s
    from perfsuite.judging.fitting import Fits as Fits
    from perfsuite.judging.gates import Verdict as Verdict
    from perfsuite.judging.gates import at_least as at_least
    from perfsuite.judging.gates import at_most as at_most
    from perfsuite.judging.gates import finite as finite
    from perfsuite.judging.gates import not_gated as not_gated
    from perfsuite.judging.interleaving import Duet as Duet
    from perfsuite.judging.stalls import judge_speedup as judge_speedup
    from perfsuite.judging.stalls import judge_stalls as judge_stalls
    from perfsuite.measuring.batch_tries import LargestBatch as LargestBatch
    from perfsuite.measuring.batch_tries import largest_batches as largest_batches
    from perfsuite.measuring.bench import Bench as Bench
    from perfsuite.measuring.busy_batch import busy_doublings as busy_doublings
    from perfsuite.measuring.climbing import Recipe as Recipe
    from perfsuite.measuring.climbing import fitting_samples as fitting_samples
    from perfsuite.measuring.climbing import own_samples as own_samples
    from perfsuite.measuring.climbing import try_levers as try_levers
    from perfsuite.measuring.collective_counts import count_collectives as count_collectives
    from perfsuite.measuring.convergence import SeedPair as SeedPair
    from perfsuite.measuring.convergence import TrainingRun as TrainingRun
    from perfsuite.measuring.convergence import judge_twice as judge_twice
    from perfsuite.measuring.convergence import train as train
    from perfsuite.measuring.convergence import train_pairs as train_pairs
    from perfsuite.measuring.epochs import EpochsOf as EpochsOf
    from perfsuite.measuring.epochs import train_epochs as train_epochs
    from perfsuite.measuring.fake_ranks import FakeRanksError as FakeRanksError
    from perfsuite.measuring.first_step import FreshProcess as FreshProcess
    from perfsuite.measuring.first_step import first_steps as first_steps
    from perfsuite.measuring.largest_convolutions import (
        largest_convolutions as largest_convolutions,
    )
    from perfsuite.measuring.memory import activation_bytes as activation_bytes
    from perfsuite.measuring.memory import (
        activation_bytes_per_sample as activation_bytes_per_sample,
    )
    from perfsuite.measuring.rank_pairs import train_rank_pairs as train_rank_pairs
    from perfsuite.measuring.rank_turns import take_rank_turns as take_rank_turns
    from perfsuite.measuring.rank_turns import take_scaling_turns as take_scaling_turns
    from perfsuite.measuring.step_counts import count_step as count_step
    from perfsuite.probes.captured import compiled_step as compiled_step
    from perfsuite.probes.on_cuda import cuda_dtypes as cuda_dtypes
    from perfsuite.probes.registry import PROBES as PROBES
    from perfsuite.probes.registry import judge_probes as judge_probes
    from perfsuite.probes.registry import probes_here as probes_here
    from perfsuite.probes.registry import run_probe as run_probe
    from perfsuite.session.declaring import workload as workload
    from perfsuite.training.arm import Arm as Arm
    from perfsuite.training.arm import CheckedStep as CheckedStep
    from perfsuite.training.batches import TrainingError as TrainingError
    from perfsuite.training.batches import doubled as doubled
    from perfsuite.training.cfg import TUTORIAL_CFG as TUTORIAL_CFG
    from perfsuite.training.cfg import CfgError as CfgError
    from perfsuite.training.data import mnist_folder as mnist_folder
    from perfsuite.training.data import mnist_loader as mnist_loader
    from perfsuite.training.levers import LeverError as LeverError
    from perfsuite.training.levers import Levers as Levers
    from perfsuite.training.levers import prefetching as prefetching
    from perfsuite.training.model import build_model as build_model
    from perfsuite.training.step import TrainStep as TrainStep
    from perfsuite.training.tutorial import tutorial_workload as tutorial_workload
    from perfsuite.training.workload import Training as Training
    from perfsuite.training.workload import Workload as Workload

_HOMES = {
    "devices.precision": "Precision PrecisionError",
    "judging.claims": "judge_claims",
    "judging.estimates": "Estimate median_s",
    "judging.fitting": "Fits",
    "judging.gates": "Verdict at_least at_most finite not_gated",
    "judging.interleaving": "Duet",
    "judging.stalls": "judge_speedup judge_stalls",
    "measuring.bench": "Bench",
    "measuring.busy_batch": "busy_doublings",
    "measuring.climbing": "Recipe fitting_samples own_samples try_levers",
    "measuring.collective_counts": "count_collectives",
    "measuring.convergence": "SeedPair TrainingRun judge_twice train train_pairs",
    "measuring.epochs": "EpochsOf train_epochs",
    "measuring.batch_tries": "LargestBatch largest_batches",
    "measuring.fake_ranks": "FakeRanksError",
    "measuring.first_step": "FreshProcess first_steps",
    "measuring.largest_convolutions": "largest_convolutions",
    "measuring.memory": "activation_bytes activation_bytes_per_sample",
    "measuring.rank_pairs": "train_rank_pairs",
    "measuring.rank_turns": "take_rank_turns take_scaling_turns",
    "measuring.step_counts": "count_step",
    "probes.captured": "compiled_step",
    "probes.on_cuda": "cuda_dtypes",
    "probes.registry": "PROBES judge_probes probes_here run_probe",
    "session.declaring": "workload",
    "training.arm": "Arm CheckedStep",
    "training.batches": "TrainingError doubled",
    "training.cfg": "TUTORIAL_CFG CfgError",
    "training.data": "mnist_folder mnist_loader",
    "training.levers": "LeverError Levers prefetching",
    "training.model": "build_model",
    "training.step": "TrainStep",
    "training.tutorial": "tutorial_workload",
    "training.workload": "Training Workload",
}
__all__ = sorted(" ".join(_HOMES.values()).split())  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    """Import a public name from the module that defines it."""
    for home, names in _HOMES.items():
        if name in names.split():
            return getattr(import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the public names."""
    return __all__
