"""The step computes what a loop written by hand computes, and leaves all else alone."""

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perfsuite.devices.choice import device_of
from perfsuite.devices.device import DeviceError
from perfsuite.devices.precision import Precision, PrecisionError, backend_flags, read_flags
from perfsuite.training.model import build_model
from perfsuite.training.step import TrainStep

pytestmark = pytest.mark.usefixtures("narrow_head")
CPU, META = torch.device("cpu"), torch.device("meta")
CFG = [[1, 4, 3, 1, 1], [4, 8, 3, 2, 1]]
STEPS = 6
Optimize = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]

OPTIMIZERS: dict[str, Optimize] = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=1e-3),
    "fused-adam": lambda parameters: torch.optim.Adam(parameters, lr=1e-3, fused=True),
}
OPTIMIZE = pytest.mark.parametrize("optimize", OPTIMIZERS.values(), ids=OPTIMIZERS)
ON_CPU = pytest.mark.parametrize(
    "precision", [Precision.fp32, Precision.bf16, Precision.fp16], ids=str
)
ANY = pytest.mark.parametrize("precision", Precision, ids=str)


def batches(device: torch.device) -> list[tuple[Tensor, Tensor]]:
    draw = torch.Generator().manual_seed(7)
    return [
        (
            torch.rand(8, 1, 8, 8, generator=draw).to(device),
            torch.randint(10, (8,), generator=draw).to(device),
        )
        for _ in range(STEPS)
    ]


def fresh(optimize: Optimize, device: torch.device) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(3)
    model = build_model(CFG).to(device).train()
    return model, optimize(model.parameters())


def by_hand(
    precision: Precision, optimize: Optimize, device: torch.device
) -> tuple[list[Tensor], nn.Module]:
    """Train as a tutorial would write it down, and share nothing with the step."""
    model, optimizer = fresh(optimize, device)
    losses = []
    if precision is Precision.fp16:
        scaler = torch.amp.GradScaler(device.type)
        for images, labels in batches(device):
            optimizer.zero_grad()
            with torch.autocast(device.type, dtype=torch.float16):
                loss = F.cross_entropy(model(images), labels)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            losses.append(loss.detach())
    else:
        for images, labels in batches(device):
            optimizer.zero_grad()
            casts = precision is Precision.bf16
            with torch.autocast(device.type, dtype=torch.bfloat16) if casts else nullcontext():
                loss = F.cross_entropy(model(images), labels)
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
    return losses, model


def values(losses: Iterable[Tensor]) -> list[float]:
    return [loss.item() for loss in losses]


def weights(model: nn.Module) -> list[Tensor]:
    return [tensor.detach().clone() for tensor in model.state_dict().values()]


def step_of(precision: Precision, optimize: Optimize = OPTIMIZERS["adam"]) -> TrainStep:
    return TrainStep(*fresh(optimize, CPU), precision=precision)


@OPTIMIZE
@ON_CPU
def test_losses_and_weights_are_those_of_a_loop_by_hand(
    precision: Precision, optimize: Optimize
) -> None:
    losses, model = by_hand(precision, optimize, CPU)
    step = step_of(precision, optimize)
    assert values(step(batch) for batch in batches(CPU)) == values(losses)
    assert all(map(torch.equal, weights(step.model), weights(model)))


def test_the_loops_by_hand_can_be_told_apart() -> None:
    # Else the test above would pass for a step that ignores its precision.
    found = {tuple(values(by_hand(p, OPTIMIZERS["adam"], CPU)[0])) for p in Precision}
    assert len(found) == 3  # tf32 is fp32 here


@ON_CPU
def test_the_loss_is_a_detached_scalar_on_the_models_device(precision: Precision) -> None:
    loss = step_of(precision)(batches(CPU)[0])
    assert (loss.shape, loss.device, loss.dtype) == ((), CPU, torch.float32)
    assert loss.grad_fn is None
    assert not loss.requires_grad


@pytest.mark.parametrize("name", ["fp32", "bf16", "fp16"])
def test_a_precision_may_be_a_string(name: str) -> None:
    loose: Any = name
    losses, _ = by_hand(Precision(name), OPTIMIZERS["adam"], CPU)
    step = step_of(loose)
    assert step.precision is Precision(name)
    assert values(step(batch) for batch in batches(CPU)) == values(losses)


def test_fp32_is_what_a_step_does_unless_told() -> None:
    assert TrainStep(*fresh(OPTIMIZERS["sgd"], CPU)).precision is Precision.fp32


@ON_CPU
def test_gradients_are_scaled_for_fp16_alone(precision: Precision) -> None:
    assert step_of(precision).scaler.is_enabled() is (precision is Precision.fp16)


def on_two_devices() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2, device=META))


@pytest.mark.parametrize(
    ("make_model", "found"),
    [(nn.ReLU, "no parameters"), (on_two_devices, "cpu, meta")],
    ids=["no-parameters", "two-devices"],
)
def test_a_model_must_be_on_one_device(make_model: Callable[[], nn.Module], found: str) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    with pytest.raises(ValueError, match=f"on one device, found {found}"):
        TrainStep(make_model(), optimizer)


@pytest.mark.parametrize(
    ("device", "precision", "error"),
    [
        (CPU, Precision.tf32, pytest.raises(PrecisionError, match="tf32 on cpu")),
        (META, Precision.fp32, pytest.raises(DeviceError, match="meta: only cuda and cpu are")),
    ],
    ids=["precision", "device"],
)
def test_what_the_device_cannot_do_is_refused(
    device: torch.device, precision: Precision, error: "pytest.RaisesExc[RuntimeError]"
) -> None:
    with error:
        TrainStep(*fresh(OPTIMIZERS["sgd"], device), precision=precision)


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(ValueError, match="fp8"):
        step_of("fp8")  # type: ignore[arg-type]  # as an untyped caller may


@ON_CPU
def test_a_step_computes_in_ieee_and_leaves_the_flags_as_they_were(precision: Precision) -> None:
    inside: dict[str, dict[str, str | bool]] = {}

    def observe(logits: Tensor, labels: Tensor) -> Tensor:
        inside["forward"] = read_flags()
        logits.register_hook(lambda _: inside.update(backward=read_flags()))
        return F.cross_entropy(logits, labels)

    step = TrainStep(*fresh(OPTIMIZERS["sgd"], CPU), precision=precision, criterion=observe)
    with backend_flags(Precision.tf32):  # so that ieee is a change
        before = read_flags()
        step(batches(CPU)[0])
        assert read_flags() == before
    assert list(inside) == ["forward", "backward"]
    for found in inside.values():
        assert found["cuda.matmul.fp32_precision"] == "ieee"
        assert found["cudnn.conv.fp32_precision"] == "ieee"


def test_flags_are_as_they_were_after_a_step_that_fails() -> None:
    step = step_of(Precision.fp32)
    images, labels = batches(CPU)[0]
    with backend_flags(Precision.tf32):
        before = read_flags()
        with pytest.raises(ValueError, match="batch"):
            step((images, labels[:-1]))
        assert read_flags() == before


@ON_CPU
def test_the_forward_pass_runs_in_the_precisions_own_dtype(precision: Precision) -> None:
    seen = []

    def observe(logits: Tensor, labels: Tensor) -> Tensor:
        seen.append(logits.dtype)
        return F.cross_entropy(logits, labels)

    step = TrainStep(*fresh(OPTIMIZERS["sgd"], CPU), precision=precision, criterion=observe)
    with torch.autocast("cpu", dtype=torch.bfloat16):  # a caller's own is not the step's
        step(batches(CPU)[0])
    assert seen == [precision.autocast_dtype or torch.float32]
    assert {parameter.dtype for parameter in step.model.parameters()} == {torch.float32}


@pytest.fixture
def gpu(precision: Precision) -> torch.device:
    device = torch.device("cuda", torch.cuda.current_device())
    if precision not in device_of(device).precisions:
        pytest.skip(f"this GPU has no {precision}")
    return device


@contextmanager
def waiting_forbidden() -> Iterator[None]:
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says of itself that it is a prototype
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


@pytest.mark.cuda
@ANY
def test_nothing_in_a_step_waits_for_the_gpu(gpu: torch.device, precision: Precision) -> None:
    step = TrainStep(*fresh(OPTIMIZERS["fused-adam"], gpu), precision=precision)
    first, second = batches(gpu)[:3], batches(gpu)[3:]
    for batch in first:  # the first steps allocate, choose kernels and fill the optimizer's state
        step(batch)
    with waiting_forbidden():
        losses = [step(batch) for batch in second]
    assert torch.stack(losses).isfinite().all()


@pytest.mark.cuda
@ANY
def test_weights_on_a_gpu_are_those_of_a_loop_by_hand(
    gpu: torch.device, precision: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    step = TrainStep(*fresh(OPTIMIZERS["sgd"], gpu), precision=precision)
    for batch in batches(gpu):
        step(batch)
    for backend in (torch.backends.cuda.matmul, torch.backends.cudnn.conv):  # type: ignore[attr-defined]  # made at import
        monkeypatch.setattr(backend, "fp32_precision", "tf32" if precision == "tf32" else "ieee")
    _, model = by_hand(precision, OPTIMIZERS["sgd"], gpu)
    for found, wanted in zip(weights(step.model), weights(model), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)
