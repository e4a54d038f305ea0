"""An arm checks its step and its batches, and shows what is in its state."""

from itertools import repeat
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from perfsuite.devices.precision import Precision, read_flags
from perfsuite.training.arm import PERTURBATION, Arm, CheckedStep, NotShownError
from perfsuite.training.batches import TrainingError, samples_in_all
from perfsuite.training.workload import Training, Workload

CPU = torch.device("cpu")


def arm_with(*state: Any, batches: Any = (), move: bool = True) -> Arm:
    parts = {f"state[{index}]": part for index, part in enumerate(state)}
    return Arm(step=lambda batch: batch, batches=iter(batches), device=CPU, parts=parts, move=move)


def test_a_loss_is_detached_and_the_flags_are_the_precision_s() -> None:
    seen = []

    def step(batch: Tensor) -> Tensor:
        seen.append(read_flags()["cuda.matmul.fp32_precision"])
        return (batch * batch).sum()

    loss = CheckedStep(step, Precision.tf32)(torch.ones(2, requires_grad=True))
    assert not loss.requires_grad
    assert seen == ["tf32"]


@pytest.mark.parametrize(
    ("returned", "told"),
    [
        (1.5, "returned a float: return the loss"),
        (None, "returned a NoneType: return the loss"),
        (torch.ones(2), r"returned a Tensor of shape \(2,\)"),
    ],
    ids=["float", "nothing", "two-values"],
)
def test_a_step_that_returns_no_loss_is_told(returned: Any, told: str) -> None:
    with pytest.raises(TrainingError, match=told):
        CheckedStep(lambda _: returned, Precision.fp32)(None)


def test_batches_of_changing_shape_are_told_by_name() -> None:
    arm = arm_with(batches=[{"x": torch.ones(4, 2)}, {"x": torch.ones(3, 2)}])
    with pytest.raises(TrainingError, match=r"batch\['x'\] \(4, 2\).*\(3, 2\).*drop_last=True"):
        arm.take(2)


def test_batches_are_moved_unless_the_step_does_it() -> None:
    batch = torch.ones(2, device="meta")
    assert arm_with(batches=[batch], move=False).take(1) == [batch]


def test_an_arm_that_is_fed_fetches_for_itself() -> None:
    fed = arm_with(batches=repeat(torch.zeros(1))).fed_by([torch.ones(1), torch.ones(1) * 2])
    assert [float(fed.step(batch)) for batch in fed.take(3)] == [1.0, 2.0, 1.0]


class Ahead(list[torch.Tensor]):
    """Stands for a DataLoader whose workers have two batches ready each."""

    num_workers, prefetch_factor = 2, 2


def test_what_workers_had_ready_before_a_block_is_not_timed() -> None:
    loader = Ahead(torch.tensor([float(at)]) for at in range(100))
    fed = arm_with(batches=repeat(torch.zeros(1))).fed_by(loader)
    blocks = [[float(fed.step(batch)) for batch in fed.take(3)] for _ in range(2)]
    # Four that were ready, and one of a step that is not timed.
    assert blocks == [[0.0, 1.0, 2.0], [8.0, 9.0, 10.0]]


def test_models_optimizers_and_scaler_are_found_in_the_state() -> None:
    model, scaler = nn.Linear(2, 1), torch.amp.GradScaler("cpu")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    arm = arm_with(optimizer, model, scaler)
    assert (arm.models, arm.optimizers, arm.scaler) == ([model], [optimizer], scaler)
    assert list(arm.named_parameters()) == ["weight", "bias"]
    assert list(arm_with(model, nn.Linear(1, 1)).named_parameters())[::2] == [
        "0.weight",
        "1.weight",
    ]


def test_what_is_not_in_the_state_is_asked_for() -> None:
    arm = arm_with()
    assert not arm.scaler.is_enabled()
    with pytest.raises(NotShownError, match="add the model to `state`"):
        arm.models  # noqa: B018  # the access is what is tested
    with pytest.raises(NotShownError, match="add the optimizer to `state`"):
        arm.optimizers  # noqa: B018  # as above


def test_a_perturbation_is_small_and_repeats() -> None:
    torch.manual_seed(0)
    model = nn.Linear(100, 100)
    before = model.weight.detach().clone()
    arm_with(model).perturb(seed=1)
    once = (model.weight.detach() / before - 1).abs()
    assert 0 < float(once.max()) < 10 * PERTURBATION
    with torch.no_grad():
        model.weight.copy_(before)
    arm_with(model).perturb(seed=1)
    assert torch.equal((model.weight.detach() / before - 1).abs(), once)


def test_equal_seeds_make_equal_trainings() -> None:
    def make(precision: Precision, device: torch.device, seed: int) -> Training:
        drawn = torch.rand(2)
        return Training(step=lambda batch: batch.sum(), batches=[drawn], state=[])

    workload = Workload(name="random", make=make)
    first, again, other = (workload.arm(Precision.fp32, CPU, seed).take(1)[0] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_function_that_makes_no_training_is_told() -> None:
    loose: Any = lambda *_: (1, 2)  # noqa: E731  # what a user might write
    with pytest.raises(TrainingError, match="'mine' made a tuple: return a"):
        Workload(name="mine", make=loose).arm(Precision.fp32, CPU)


@pytest.mark.parametrize(("wanted", "rows"), [(32, 8), (16, 4), (64, 16), (1, 1)])
def test_micro_batches_are_resized_together(wanted: int, rows: int) -> None:
    arm = arm_with(batches=[[torch.arange(8) for _ in range(4)]])
    arm.samples = samples_in_all
    (batch,) = arm.resized(wanted).take(1)
    assert [len(each) for each in batch] == [rows] * 4


def test_samples_that_are_not_the_first_dimension_are_resized_in_proportion() -> None:
    tokens_by_sample = torch.ones(6, 3)
    arm = arm_with(batches=[tokens_by_sample])
    arm.samples = lambda batch: batch.shape[1]
    assert arm.resized(3).take(1)[0] is tokens_by_sample
    arm.batches = iter([tokens_by_sample])
    assert arm.resized(2).take(1)[0].shape == (4, 3)
