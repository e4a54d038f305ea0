"""What users rely on, as it is: public names, options of pytest and of the commands."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from imported_names import imported

import perfsuite
import perfsuite.benchmarks
from perfsuite.__main__ import main

ROOT = Path(perfsuite.__file__).parents[1]


def test_public_names() -> None:
    assert sorted(perfsuite.__all__, key=lambda name: (not name.isupper(), name)) == [
        "PROBES",
        "TUTORIAL_CFG",
        "Arm",
        "Bench",
        "CfgError",
        "CheckedStep",
        "Duet",
        "EpochsOf",
        "Estimate",
        "FakeRanksError",
        "Fits",
        "FreshProcess",
        "LargestBatch",
        "LeverError",
        "Levers",
        "Precision",
        "PrecisionError",
        "Recipe",
        "SeedPair",
        "TrainStep",
        "Training",
        "TrainingError",
        "TrainingRun",
        "Verdict",
        "Workload",
        "activation_bytes",
        "activation_bytes_per_sample",
        "at_least",
        "at_most",
        "build_model",
        "busy_doublings",
        "compiled_step",
        "count_collectives",
        "count_step",
        "cuda_dtypes",
        "doubled",
        "finite",
        "first_steps",
        "fitting_samples",
        "judge_claims",
        "judge_probes",
        "judge_speedup",
        "judge_stalls",
        "judge_twice",
        "largest_batches",
        "largest_convolutions",
        "median_s",
        "mnist_folder",
        "mnist_loader",
        "not_gated",
        "own_samples",
        "prefetching",
        "probes_here",
        "run_probe",
        "take_rank_turns",
        "take_scaling_turns",
        "train",
        "train_epochs",
        "train_pairs",
        "train_rank_pairs",
        "try_levers",
        "tutorial_workload",
        "workload",
    ]
    assert all(hasattr(perfsuite, name) for name in perfsuite.__all__)
    assert dir(perfsuite) == sorted(perfsuite.__all__)


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda p: p.stem)
def test_a_benchmark_file_needs_public_names_alone(path: Path) -> None:
    assert {name for name in imported(path) if name.startswith("perfsuite")} <= {
        "perfsuite",
        "perfsuite.benchmarks",
        # Not among those that a star imports: it runs where it is named.
        "perfsuite.benchmarks.step_advice",
        "perfsuite.benchmarks.step_advice.test_step_advice",
        *(f"perfsuite.{name}" for name in perfsuite.__all__),
        *(f"perfsuite.benchmarks.{name}" for name in perfsuite.benchmarks.__all__),
        "perfsuite.benchmarks.largest_batch",  # takes too long for the standard ones
        "perfsuite.benchmarks.largest_batch.test_largest_batch",
        "perfsuite.benchmarks.compilation",  # of trainings with torch.compile alone
        "perfsuite.benchmarks.compilation.test_compilation",
        "perfsuite.benchmarks.collectives",  # of trainings on several ranks alone
        "perfsuite.benchmarks.collectives.test_collectives",
    }


def test_options_of_pytest(pytestconfig: pytest.Config) -> None:
    options = {k: v for k, v in vars(pytestconfig.option).items() if k.startswith("perf_")}
    assert options == {
        "perf_device": "auto",
        "perf_workload": None,
        "perf_parallel": None,
        "perf_data": "mnist5k",
        "perf_budget": 60.0,
        "perf_epochs": None,
        "perf_report": None,
        "perf_against": None,
        "perf_against_python": None,
        "perf_ranks": None,
        "perf_history": None,
        "perf_confirm_python": None,
    }


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("init", {"DIR"}),
        ("promote", {"RUN.json", "--suite", "--replace", "--allow-dirty", "--allow-busy"}),
        ("history", {"DIR", "--hardware", "--output", "--max-age"}),
        ("accept", {"RUN.json", "--suite"}),
        ("advise", {"DIR", "--suite", "--hardware", "--budget", "--margin", "--write"}),
        ("advise-step", {"DIR"}),
        (
            "bisect",
            {"GOOD", "BAD", "FILE", "--packages", "--suite", "--figure", "--budget", "--output"},
        ),
        ("report", {"RUN.json", "--output"}),
    ],
)
def test_options_of_the_commands(
    command: str, options: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    told = re.findall(
        r"^  (?:-\w(?: \S+)?, )?(--[a-z-]+|[A-Z][\w.]+)", capsys.readouterr().out, re.M
    )
    assert set(told) == options | {"--help"}


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        perfsuite.nothing  # noqa: B018  # the access is what is tested


def test_the_cfg_and_its_error_come_without_torch() -> None:
    code = (
        "import sys, perfsuite; perfsuite.TUTORIAL_CFG; perfsuite.CfgError;"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
