"""Each lever leaves a step what it is: the same losses as those of the plain step."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from perfsuite.devices.cards import CARDS
from perfsuite.devices.choice import choose_device
from perfsuite.devices.precision import Precision
from perfsuite.training.levers import LeverError, Levers, prefetching
from perfsuite.training.step import TrainStep
from perfsuite.training.workload import Training, Workload

pytestmark = pytest.mark.usefixtures("narrow_head")

CPU = torch.device("cpu")
STEPS = 6
TOLERANCE = 1e-4
"""Of a loss, relative, in fp32: sums are taken in another order."""
ADAM = partial(torch.optim.Adam, lr=1e-2)


def make(
    precision: Precision,
    device: torch.device,
    seed: int,
    optimizer: Any = ADAM,
) -> Training:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, bias=False),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    )
    step = TrainStep(model, optimizer(model.parameters()), precision=precision)
    noise = torch.Generator().manual_seed(seed)
    batches = [
        (torch.randn(4, 3, 6, 6, generator=noise), torch.randint(4, (4,), generator=noise))
        for _ in range(3)
    ]
    return Training(step=step, batches=batches, state=[model, step.optimizer, step.scaler])


WORKLOAD = Workload(name="images", make=make)


def losses(levers: Levers, workload: Workload = WORKLOAD) -> list[float]:
    arm = workload.arm(Precision.fp32, CPU, levers=levers)
    return [float(arm.step(batch)) for batch in arm.take(STEPS)]


@pytest.mark.parametrize(
    "levers",
    [
        Levers(channels_last=True),
        Levers(fused=True),
        Levers(fused=False),
        Levers(doublings=1),
        Levers(channels_last=True, fused=True, doublings=2),
    ],
    ids=str,
)
def test_a_lever_leaves_the_losses_as_they_are(levers: Levers) -> None:
    plain = losses(Levers())
    assert plain[-1] != pytest.approx(plain[0], rel=10 * TOLERANCE)  # there is something to see
    assert losses(levers) == pytest.approx(plain, rel=TOLERANCE)


def test_compiled_models_leave_the_losses_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, compiled = losses(Levers()), list[str]()
    compile_it = nn.Module.compile

    def quickly(module: nn.Module, **how: Any) -> None:  # inductor takes half a minute
        compiled.append(type(module).__name__)
        compile_it(module, backend="aot_eager", **how)

    monkeypatch.setattr(nn.Module, "compile", quickly)
    assert losses(Levers(compile=True)) == pytest.approx(plain, rel=TOLERANCE)
    assert compiled == ["Sequential"]


def test_a_model_is_compiled_anew_for_a_batch_of_another_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes: list[Any] = []
    compile_it = nn.Module.compile

    def backend(graph: torch.fx.GraphModule, inputs: list[Any]) -> Any:
        sizes.extend(size for each in inputs for size in getattr(each, "shape", [each]))
        return graph.forward

    def quickly(module: nn.Module, **how: Any) -> None:
        compile_it(module, backend=backend, **how)

    monkeypatch.setattr(nn.Module, "compile", quickly)
    torch.compiler.reset()
    for doublings in (0, 1):
        losses(Levers(compile=True, doublings=doublings))
    assert {4, 8} <= {*sizes}
    assert {type(size) for size in sizes} == {int}


def test_a_captured_step_leaves_the_losses_as_they_are() -> None:
    plain = losses(Levers(fused=True))
    choose_device(f"simulated:{next(iter(CARDS))}")
    try:
        assert losses(Levers(fused=True, graph=True)) == pytest.approx(plain, rel=TOLERANCE)
    finally:
        choose_device("cpu")


def test_the_levers_do_what_they_say() -> None:
    arm = WORKLOAD.arm(
        Precision.fp32, CPU, levers=Levers(channels_last=True, fused=True, doublings=1)
    )
    ((images, labels),) = arm.take(1)
    assert images.shape == (8, 3, 6, 6)
    assert images.is_contiguous(memory_format=torch.channels_last)
    weights = [parameter for parameter in arm.parameters() if parameter.dim() == 4]
    assert all(each.is_contiguous(memory_format=torch.channels_last) for each in weights)
    assert arm.optimizers[0].param_groups[0]["fused"] is True
    arm.step((images, labels))
    assert arm.optimizers[0].state[weights[0]]["step"].device == CPU


def test_cudnn_tries_its_kernels_within_the_step_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perfsuite.devices.cpu.Cpu.has_cudnn", True)
    seen: list[bool] = []

    def see(precision: Precision, device: torch.device, seed: int) -> Training:
        made = make(precision, device, seed)
        written = made.step

        def step(batch: Any) -> Any:
            seen.append(torch.backends.cudnn.benchmark)
            return written(batch)

        made.step = step
        return made

    losses(Levers(cudnn_benchmark=True), Workload(name="seen", make=see))
    losses(Levers(), Workload(name="seen", make=see))
    assert seen == [True] * STEPS + [False] * STEPS
    assert torch.backends.cudnn.benchmark is False


def linear(precision: Precision, device: torch.device, seed: int) -> Training:
    made = make(precision, device, seed, partial(torch.optim.Adadelta, lr=1e-2))
    if seed:
        made.state = []
    return made


@pytest.mark.parametrize(
    ("levers", "seed", "reason"),
    [
        (Levers(fused=True), 0, "Adadelta has no fused form"),
        (Levers(graph=True), 0, "cpu has no graphs"),
        (Levers(cudnn_benchmark=True), 0, "cpu has no cuDNN"),
        (Levers(channels_last=True), 1, "no model has weights of four dimensions"),
        (Levers(compile=True), 1, "no model in `state`"),
        (Levers(fused=True), 1, "no optimizer in `state`"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_a_lever_that_cannot_be_pulled_says_why(levers: Levers, seed: int, reason: str) -> None:
    with pytest.raises(LeverError, match=reason):
        Workload(name="own", make=linear).arm(Precision.fp32, CPU, seed, levers=levers)


def test_a_lever_that_is_pulled_already_says_so() -> None:
    def fused(precision: Precision, device: torch.device, seed: int) -> Training:
        made = make(precision, device, seed, partial(torch.optim.Adam, fused=True))
        made.state[0].to(memory_format=torch.channels_last)
        return made

    workload = Workload(name="own", make=fused)
    for levers in (Levers(fused=True), Levers(channels_last=True)):
        with pytest.raises(LeverError, match="already"):
            workload.arm(Precision.fp32, CPU, levers=levers)


class Stream(IterableDataset[int]):
    """Numbers that have no length."""

    def __iter__(self) -> Iterator[int]:
        return iter(range(10))


@pytest.mark.parametrize("batch_size", [4, None])
def test_a_loader_of_a_stream_is_left_as_it_is(batch_size: int | None) -> None:
    with pytest.raises(LeverError, match="the loader's data set is an IterableDataset"):
        prefetching(DataLoader(Stream(), batch_size=batch_size), CPU)


def test_a_loader_that_prefetches_gives_the_same_batches() -> None:
    data = TensorDataset(torch.arange(10.0), torch.arange(10))
    loader = DataLoader(data, batch_size=4, drop_last=True)
    again = prefetching(loader, CPU)
    assert (again.num_workers, again.pin_memory, len(again)) == (2, False, len(loader))
    assert prefetching(loader, torch.device("cuda")).pin_memory
    for held, reason in (([1], "from a list"), (again, "2 workers already")):
        with pytest.raises(LeverError, match=reason):
            prefetching(held, CPU)
