"""Where dropout's masks differ by dtype, the control of a pair is as noisy as the candidate."""

import math
from statistics import stdev
from typing import Any

import pytest
import torch
from fakes import FakeTime
from torch import Tensor, nn

from perfsuite.devices.precision import Precision
from perfsuite.measuring import convergence
from perfsuite.measuring.convergence import train_pairs
from perfsuite.measuring.masks import masks_differ
from perfsuite.training.step import TrainStep
from perfsuite.training.workload import Training, Workload

CPU = torch.device("cpu")


def noisy(precision: Precision, device: torch.device, seed: int) -> Training:
    """Return a training whose losses differ by dropout's masks much more than by rounding."""
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 2)).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    inputs = torch.randn(16, 8, generator=torch.Generator().manual_seed(seed))
    batch = inputs, (inputs.sum(1) > 0).long()
    step = TrainStep(model, optimizer, precision=precision)
    return Training(step=step, batches=[batch], state=[model, optimizer])


def noise_of(workload: Workload) -> tuple[float, float]:
    """Return the scatter of candidate and control against the reference."""
    pairs = train_pairs(
        lambda precision, seed: workload.arm(precision, CPU, seed),
        Precision.fp32,
        Precision.bf16,
        seeds=range(8),
        steps=20,
        clock=FakeTime().clock(),
    )
    candidate, control = (
        stdev(math.log(getattr(each, kind).mean_loss / each.reference.mean_loss) for each in pairs)
        for kind in ("candidate", "control")
    )
    return candidate, control


def test_the_control_has_the_noise_of_masks_that_differ_by_dtype(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dropout = nn.functional.dropout

    def of_dtype(given: Tensor, *arguments: Any) -> Tensor:
        if given.dtype is not torch.float32:
            torch.rand(1)  # as a kernel that draws in other portions
        return dropout(given, *arguments)

    monkeypatch.setattr(nn.functional, "dropout", of_dtype)
    workload = Workload(name="noisy", make=noisy)
    candidate, control = noise_of(workload)
    assert candidate > 0.01
    assert 0.4 < control / candidate < 2.5
    monkeypatch.setattr(convergence, "masks_differ", lambda *_: False)
    assert noise_of(workload)[1] < candidate / 100


def test_where_masks_are_the_same_the_control_keeps_them() -> None:
    assert not any(masks_differ(CPU, precision) for precision in Precision)
    assert max(noise_of(Workload(name="noisy", make=noisy))) < 0.01


def test_to_ask_for_masks_draws_no_random_numbers_that_are_a_trainings() -> None:
    before = torch.get_rng_state()
    masks_differ(CPU, Precision.bf16)
    assert torch.equal(torch.get_rng_state(), before)
