"""A step that is captured as a graph trains as it is written, and costs the host one launch."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from sabotage.graphs import CapturedRate, MovingRate
from torch import Tensor, nn

from perfsuite.devices.choice import choose_device
from perfsuite.devices.cuda import Cuda
from perfsuite.devices.device import Device, DeviceError
from perfsuite.devices.precision import Precision
from perfsuite.judging.gates import Outcome, Verdict
from perfsuite.judging.host_bound import Load
from perfsuite.measuring.convergence import train
from perfsuite.measuring.kernels import loads_of
from perfsuite.measuring.timing import time_block, warm_up
from perfsuite.probes.captured import graphed_step
from perfsuite.probes.registry import PROBES, run_probe
from perfsuite.training.batches import TrainingError
from perfsuite.training.graphed import PLAIN_STEPS, GraphedStep
from perfsuite.training.snapshot import state_difference, states_of
from perfsuite.training.step import TrainStep
from perfsuite.training.tutorial import tutorial_workload
from perfsuite.training.workload import Training, Workload

CPU = torch.device("cpu")
PRECISIONS = pytest.mark.parametrize(
    "precision", [Precision.fp32, Precision.bf16, Precision.fp16], ids=str
)


@pytest.fixture(params=["simulated:h100", pytest.param("cuda", marks=pytest.mark.cuda)])
def device(request: pytest.FixtureRequest) -> Iterator[Device]:
    yield choose_device(request.param)
    choose_device("cpu")


class OwnScale(TrainStep):
    """Scales by a number of its own that Python doubles: outside of whatever is captured."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.scaler = self  # type: ignore[assignment]  # all that is asked of one
        self.value = 1.0

    def scale(self, loss: Tensor) -> Tensor:
        return loss * self.value

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad.div_(self.value)
        optimizer.step()

    def update(self) -> None:
        self.value *= 2

    def state_dict(self) -> dict[str, float]:
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.value = state["value"]


def network(device: torch.device) -> nn.Module:
    layers = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)
    return nn.Sequential(*layers).to(device)


def workload(kind: type[TrainStep] = TrainStep, *, graph: bool = True) -> Workload:
    def make(precision: Precision, device: torch.device, _: int) -> Training:
        model = network(device)
        adam = torch.optim.Adam(model.parameters(), lr=1e-2, fused=True, capturable=graph)
        step = kind(model, adam, precision=precision, graph=graph)
        draw = torch.Generator().manual_seed(1)
        batches = [
            (torch.randn(8, 1, 8, 8, generator=draw), torch.randint(10, (8,), generator=draw))
            for _ in range(20)
        ]
        return Training(step=step, batches=batches, state=[model, adam, step.scaler])

    return Workload(name="graphed", make=make, block_steps=2)


def looked_at(made: Workload, device: Device, precision: Precision = Precision.bf16) -> Verdict:
    (batch,) = made.arm(precision, device.place).take(1)
    return run_probe(graphed_step, lambda p: made.arm(p, device.place), precision, batch)


@PRECISIONS
def test_a_graph_trains_as_the_step_is_written(device: Device, precision: Precision) -> None:
    verdict = looked_at(workload(), device, precision)
    assert verdict.outcome is Outcome.PASS, str(verdict)
    assert verdict.figure == "6 steps were those of the step as it is written"


@PRECISIONS
def test_every_probe_passes_on_a_graph(device: Device, precision: Precision) -> None:
    made = workload()
    (batch,) = made.arm(precision, device.place).take(1)
    verdicts = [run_probe(p, lambda q: made.arm(q, device.place), precision, batch) for p in PROBES]
    assert [str(each) for each in verdicts if each.outcome is not Outcome.PASS] == []


def test_a_batch_that_is_not_copied_is_seen(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(GraphedStep, "feed", lambda *_: None)
    verdict = looked_at(workload(), device)
    assert verdict.outcome is Outcome.FAIL
    assert "the loss of step 5 is" in verdict.figure
    assert "its batch" in verdict.reason


def test_a_learning_rate_that_is_captured_is_seen(device: Device) -> None:
    healthy = looked_at(workload(MovingRate), device)
    assert healthy.outcome is Outcome.PASS, str(healthy)
    verdict = looked_at(workload(CapturedRate), device)
    assert verdict.outcome is Outcome.FAIL
    assert "a learning rate" in verdict.reason


def test_a_scaler_that_is_left_outside_is_seen(device: Device) -> None:
    verdict = looked_at(workload(OwnScale), device)
    assert verdict.outcome is Outcome.FAIL
    assert "['value'] differs after 9 steps" in verdict.figure


def test_where_no_graph_is_asked_for_there_is_none(device: Device) -> None:
    verdict = looked_at(workload(graph=False), device)
    assert (verdict.outcome, verdict.figure) == (Outcome.PASS, "no graph was asked for")


def test_a_state_is_put_back_to_where_the_graph_uses_it(device: Device) -> None:
    arm = workload().arm(Precision.fp16, device.place)
    batches = arm.take(PLAIN_STEPS + 4)
    for batch in batches[: PLAIN_STEPS + 1]:
        arm.step(batch)
    before, restore = states_of(arm.parts), arm.snapshot()
    rest = batches[PLAIN_STEPS + 1 :]
    first = [float(arm.step(batch)) for batch in rest]
    restore()
    assert state_difference(before, states_of(arm.parts)) is None
    assert [float(arm.step(batch)) for batch in rest] == pytest.approx(first, rel=1e-3)
    assert first[0] != pytest.approx(first[1], rel=1e-3)


def test_a_state_from_before_there_was_one_makes_it_begin_again(device: Device) -> None:
    arm = workload().arm(Precision.fp32, device.place)
    restore, batches = arm.snapshot(), arm.take(PLAIN_STEPS + 3)
    first = [float(arm.step(batch)) for batch in batches]
    restore()
    assert [float(arm.step(batch)) for batch in batches] == pytest.approx(first, rel=1e-3)


def test_batches_of_another_shape_are_refused(device: Device) -> None:
    arm = workload().arm(Precision.fp32, device.place)
    for batch in arm.take(PLAIN_STEPS + 1):
        arm.step(batch)
    images, labels = batch
    with pytest.raises(TrainingError, match="batches of one shape"):
        arm.step((images[:1], labels[:1]))


def test_a_step_that_reads_on_the_host_is_told_in_one_line(device: Device) -> None:
    class Reads(TrainStep):
        def __call__(self, batch: tuple[Tensor, Tensor]) -> Tensor:
            loss = super().__call__(batch)
            return loss * (float(loss) > 0)

    arm = workload(Reads).arm(Precision.fp32, device.place)
    *plain, captured = arm.take(PLAIN_STEPS + 1)
    for batch in plain:
        arm.step(batch)
    with pytest.raises(TrainingError, match=r"cannot be captured as a graph: .*captur"):
        arm.step(captured)


@pytest.mark.parametrize(("graph", "skipped"), [(False, 0), (True, None)])
def test_steps_that_a_graph_takes_are_not_taken_for_skipped(
    device: Device, graph: bool, skipped: int | None
) -> None:
    def make(precision: Precision, device: torch.device, _: int) -> Training:
        model = network(device)
        sgd = torch.optim.SGD(model.parameters(), lr=1e-2)  # which counts none
        step = TrainStep(model, sgd, precision=precision, graph=graph)
        batches = [(torch.ones(8, 1, 8, 8), torch.zeros(8, dtype=torch.int64))]
        return Training(step=step, batches=batches, state=[model, sgd])

    arm = Workload(name="sgd", make=make).arm(Precision.fp32, device.place)
    run = train(arm, arm.take(PLAIN_STEPS + 5), device.clock())
    assert run.skipped_steps == skipped


def test_a_cpu_says_that_it_has_no_graphs() -> None:
    with pytest.raises(DeviceError, match=r"^cpu: it has no graphs; leave out graph=True"):
        workload().arm(Precision.fp32, CPU)


def load(device: Device, *, graph: bool) -> Load:
    made = tutorial_workload("tiny", "synthetic", graph=graph)
    arm = replace(made.arm(Precision.bf16, device.place), label="bf16")
    clock = device.clock()
    warm_up(arm, clock, steps=2)
    (found,) = loads_of([(arm, [time_block(arm, clock, 2)])], device)
    return found


def test_a_graph_takes_the_host_out_of_a_step() -> None:
    device = choose_device("simulated:h100")
    try:
        plain, graphed = load(device, graph=False), load(device, graph=True)
    finally:
        choose_device("cpu")
    assert plain.host_bound
    assert not graphed.host_bound
    assert graphed.host_s < plain.host_s / 20
    assert graphed.device_s < plain.device_s


class FakeTorch:
    """Stands for `torch.cuda`, and notes what is asked of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.said: list[str] = []
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device", lambda _: nullcontext())
        monkeypatch.setattr(torch.cuda, "current_stream", lambda _: self.stream("main"))
        monkeypatch.setattr(torch.cuda, "Stream", lambda _: self.stream("side"))
        monkeypatch.setattr(torch.cuda, "stream", self.entered)
        monkeypatch.setattr(torch.cuda, "CUDAGraph", self.graph)
        monkeypatch.setattr(torch.cuda, "graph", self.entered)

    def stream(self, name: str) -> Any:
        return _Named(name, self.said)

    def graph(self) -> Any:
        return _Named("graph", self.said)

    def entered(self, what: Any) -> Any:
        self.said.append(f"in {what}")
        return nullcontext()


class _Named:
    def __init__(self, name: str, said: list[str]) -> None:
        self.name, self.said = name, said

    def __str__(self) -> str:
        return self.name

    def wait_stream(self, other: object) -> None:
        self.said.append(f"{self} waits for {other}")

    def replay(self) -> None:
        self.said.append("replayed")


def test_a_gpu_warms_up_on_a_stream_of_its_own_and_replays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake, gpu = FakeTorch(monkeypatch), Cuda(0)
    with gpu.beside_capture():
        fake.said.append("step")
    assert fake.said == ["side waits for main", "in side", "step", "main waits for side"]
    fake.said.clear()
    loss = torch.ones(())

    def step() -> Tensor:
        fake.said.append("step")
        return loss

    replay = gpu.capture(step)
    assert [replay() is loss, replay() is loss] == [True, True]
    assert fake.said == ["in graph", "step", "replayed", "replayed"]
