"""The ladder: from the tutorial's own loop to what this device can do, one lever more a rung."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from perfsuite import (
    Bench,
    Precision,
    Recipe,
    fitting_samples,
    largest_convolutions,
    mnist_folder,
    mnist_loader,
    prefetching,
    try_levers,
)

FOOT, AMP = "the tutorial's loop in fp32", "mixed precision"


@pytest.mark.one_rank
@pytest.mark.when_named
@pytest.mark.one_tree
def test_ladder(perf: Bench, tmp_path: Path) -> None:
    """Neighbours take turns; a lever that makes the step slower is told, and taken off again."""
    amp = perf.machine.amp[-1]  # bf16, where there is bf16
    folder = mnist_folder(perf.workload.data, tmp_path)
    # As the text has it: DataLoader, ToTensor, a copy a batch, plain Adam, the loss read each step.
    tutorial = Recipe(
        precision=Precision.fp32,
        fused=False,
        feed=lambda samples: mnist_loader(folder, samples),
        reads_loss=True,
    )
    levers: dict[str, dict[str, Any]] = {
        AMP: {"precision": amp},
        "loss left on the device": {"reads_loss": False},
        "loader that prefetches": {
            "feed": lambda samples: prefetching(mnist_loader(folder, samples), perf.device)
        },
        "images on the device": {"feed": None},
        "channels_last": {"channels_last": True},
        "fused Adam": {"fused": None},  # as the workload makes it
        "cudnn.benchmark, set late": {"cudnn_benchmark": True},
        "CUDA graph": {"graph": True},
        "torch.compile": {"compile": True},
        "batch x2": {"doublings": 1},
    }
    samples = fitting_samples(perf, tutorial, Recipe(precision=amp))
    perf.configure(samples=samples, precision=str(amp))
    found = try_levers(perf, tutorial, levers, foot=FOOT, samples=samples, climb=True, always=AMP)
    convolutions = largest_convolutions(perf, tutorial, levers, found, samples=samples)
    perf.keep("levers", [asdict(each) for each in found])
    perf.keep("convolutions", [asdict(each) for each in convolutions])
    best = max(each.samples_per_s or 0.0 for each in found)
    perf.metric("images_per_s", best, unit="images/s", better="higher")
