"""Memory: what is kept for backward is counted as it would be by hand."""

import gc
from collections.abc import Iterator

import pytest
import torch
from sabotage import environments as env
from torch import Tensor, nn

from perfsuite.devices.choice import choose_device
from perfsuite.devices.device import Device
from perfsuite.devices.precision import Precision
from perfsuite.devices.simulated import Simulated
from perfsuite.measuring.memory import activation_bytes, peak_memory
from perfsuite.training.arm import Arm
from perfsuite.training.step import Criterion, TrainStep
from perfsuite.training.tutorial import tutorial_workload

CPU = torch.device("cpu")
TINY = tutorial_workload("tiny")
FLOAT = 4


def total(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.sum()  # keeps nothing


def square(logits: Tensor, labels: Tensor) -> Tensor:
    return (logits * logits).sum()  # keeps the logits twice


def half_and_all(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.square().sum() + logits[:, :1].square().sum()  # keeps them and a view of them


class Scaled(nn.Module):
    """Multiply by a buffer, which autograd keeps for backward."""

    factor: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("factor", torch.full((width,), 2.0))

    def forward(self, values: Tensor) -> Tensor:
        return values * self.factor


def two_layers() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2))


def kept(model: nn.Module, rows: int, criterion: Criterion = total) -> int:
    step = TrainStep(model, torch.optim.SGD(model.parameters(), lr=0.1), criterion=criterion)
    return activation_bytes(
        env.arm_of(step), (torch.rand(rows, 3), torch.zeros(rows, dtype=torch.int64))
    )


@pytest.mark.parametrize("rows", [1, 7])
def test_two_layers_counted_by_hand(rows: int) -> None:
    # The first layer keeps its input, ReLU and the second layer keep one and the same tensor
    # between them. The second layer also keeps its weights, which are the model's own.
    assert kept(two_layers(), rows) == FLOAT * rows * (3 + 5)


@pytest.mark.parametrize("criterion", [square, half_and_all], ids=["tensor", "view"])
def test_what_is_kept_twice_counts_once(criterion: Criterion) -> None:
    assert kept(two_layers(), 7, criterion) == FLOAT * 7 * (3 + 5 + 2)


def test_cross_entropy_counted_by_hand() -> None:
    # Log-probabilities, the labels, and the sum of the weights of the labels.
    more = FLOAT * 7 * 2 + 8 * 7 + FLOAT
    assert kept(two_layers(), 7, nn.functional.cross_entropy) == FLOAT * 7 * (3 + 5) + more


def test_a_buffer_that_is_kept_does_not_count() -> None:
    bare = nn.Sequential(nn.Linear(3, 5))
    assert kept(nn.Sequential(bare, Scaled(5)), 7) == kept(bare, 7) == FLOAT * 7 * 3


def test_a_parameter_that_is_kept_does_not_count() -> None:
    # The last layer's weights are a hundred times what else is kept.
    model = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 1000))
    assert kept(model, 1) == FLOAT * (3 + 5)


def test_a_batch_that_is_a_view_of_all_data_counts_as_much_as_it_is() -> None:
    model = two_layers()
    arm = env.arm_of(TrainStep(model, torch.optim.SGD(model.parameters()), criterion=total))
    data = torch.rand(1000, 3)
    assert activation_bytes(arm, (data[:7], torch.zeros(7))) == FLOAT * 7 * (3 + 5)


def test_the_step_is_taken() -> None:
    model = two_layers()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    kept(model, 7)
    assert not any(map(torch.equal, model.parameters(), before))


def test_the_same_step_keeps_the_same_again() -> None:
    arm = TINY.arm(Precision.bf16, CPU)
    batch = torch.rand(4, 1, 28, 28), torch.zeros(4, dtype=torch.int64)
    assert activation_bytes(arm, batch) == activation_bytes(arm, batch)


def per_image(precision: Precision) -> float:
    arm = TINY.arm(precision, CPU)
    few, many = (
        activation_bytes(arm, (torch.rand(n, 1, 28, 28), torch.zeros(n, dtype=torch.int64)))
        for n in (2, 6)
    )
    return (many - few) / 4


def test_an_image_takes_half_the_memory_in_bf16() -> None:
    assert per_image(Precision.bf16) / per_image(Precision.fp32) == pytest.approx(0.5, abs=0.01)


@pytest.fixture(params=["simulated:h100", pytest.param("cuda", marks=pytest.mark.cuda)])
def gpu(request: pytest.FixtureRequest) -> Iterator[Device]:
    yield choose_device(request.param)
    choose_device("cpu")


def in_use(device: Device) -> int:
    if isinstance(device, Simulated):
        return device.used_bytes
    return torch.cuda.memory_allocated(device.place)


@pytest.mark.parametrize("precision", Precision, ids=str)
def test_the_peak_holds_what_is_kept_and_all_of_it_is_freed(
    gpu: Device, precision: Precision
) -> None:
    device = gpu.place
    if precision not in gpu.precisions:
        pytest.skip(f"this GPU has no {precision}")

    def make() -> Arm:
        return TINY.arm(precision, device)

    arm = make()
    needed = activation_bytes(arm, arm.take(1)[0])
    del arm
    peak_memory(make, gpu, steps=4)  # the first leaves cuBLAS's workspace behind
    gc.collect()
    before = in_use(gpu)
    peak = peak_memory(make, gpu, steps=4)
    assert peak is not None
    gc.collect()
    assert in_use(gpu) == before
    assert peak.allocated_bytes > needed
    assert peak.alloc_retries == 0


class DropsBranches(nn.Module):
    """Computes branches of which nothing is kept for the backward pass."""

    def __init__(self, branches: int) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.branches = branches

    def forward(self, images: Tensor) -> Tensor:
        for _ in range(self.branches):
            self.layer(images).sigmoid()
        return torch.as_tensor(self.layer(images))


def test_what_is_dropped_on_the_way_does_not_count() -> None:
    images, labels = torch.ones(1000, 3), torch.zeros(1000, dtype=torch.int64)
    kept = set()
    for branches in (0, 20):
        model = DropsBranches(branches)
        step = TrainStep(model, torch.optim.SGD(model.parameters(), lr=0.1))
        kept.add(activation_bytes(env.arm_of(step), (images, labels)))
    assert len(kept) == 1
