"""Values that are fetched and bytes that are lost are counted, each once."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from probing import CPU, red
from sabotage import environments as env
from torch import Tensor

from perfsuite.devices.accelerator import synchronizing_raises
from perfsuite.devices.cpu import Cpu
from perfsuite.devices.precision import Precision
from perfsuite.judging.gates import Outcome
from perfsuite.probes import resources
from perfsuite.training.step import TrainStep

pytestmark = pytest.mark.usefixtures("narrow_head")


def test_an_optimizer_that_reads_its_own_count_waits_for_nothing(batch: env.Batch) -> None:
    made = env.factory(TrainStep, CPU, optimizer=env.adam_not_fused)
    verdict = resources.host_waits(made, Precision.bf16, batch)
    assert verdict.outcome is Outcome.PASS, str(verdict)


@pytest.mark.parametrize("read", [float, bool, Tensor.item], ids=["float", "bool", "item"])
def test_every_way_to_fetch_a_value_counts(
    read: Callable[[Tensor], object], batch: env.Batch
) -> None:
    class Reads(TrainStep):
        def __call__(self, batch: tuple[Tensor, Tensor]) -> Tensor:
            loss = super().__call__(batch)
            read(loss)
            return loss

    verdict = resources.host_waits(env.factory(Reads, CPU), Precision.bf16, batch)
    at = Reads.__call__.__code__.co_firstlineno + 2
    assert red(verdict, f"waits for the device: 1 fetched by test_resources.py:{at}")


def test_of_several_reads_the_first_is_named(batch: env.Batch) -> None:
    class Reads(TrainStep):
        def __call__(self, batch: tuple[Tensor, Tensor]) -> Tensor:
            handle = next(self.model.parameters()).register_hook(
                lambda grad: grad * float(grad[0, 0, 0, 0])
            )
            loss = super().__call__(batch)
            handle.remove()
            return loss * float(loss)

    verdict = resources.host_waits(env.factory(Reads, CPU), Precision.bf16, batch)
    at = Reads.__call__.__code__.co_firstlineno + 2
    assert red(verdict, f": 2 fetched, the first by test_resources.py:{at}")


class WithEvents(Cpu):
    """A CPU that is to be looked at as a GPU is."""

    def host_waits_raise(self) -> AbstractContextManager[None]:
        return synchronizing_raises()


def test_a_step_that_synchronizes_is_seen_where_the_device_would_be_waited_for(
    batch: env.Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Waits(TrainStep):
        def __call__(self, batch: tuple[Tensor, Tensor]) -> Tensor:
            torch.Event("cuda").synchronize()  # one that was never recorded: nothing to wait for
            return super().__call__(batch)

    made = env.factory(Waits, CPU)
    assert resources.host_waits(made, Precision.bf16, batch).outcome is Outcome.PASS
    monkeypatch.setattr(resources, "device_of", lambda _: WithEvents())
    verdict = resources.host_waits(made, Precision.bf16, batch)
    assert red(verdict, "the step waits for the device: synchronizes with an event")


class KeepsLosses(TrainStep):
    """Keeps each loss: one float32 a step."""

    def __call__(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        loss = super().__call__(batch)
        self.kept = [*getattr(self, "kept", []), loss]
        return loss


class KeepsGraphs(TrainStep):
    """Keeps each step's activations, by a graph that no backward pass has freed."""

    def __call__(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        self.kept = [*getattr(self, "kept", []), self.model(batch[0])]
        return super().__call__(batch)


@pytest.mark.parametrize(
    ("kind", "least"), [(KeepsLosses, 4), (KeepsGraphs, 100_000)], ids=["losses", "graphs"]
)
@pytest.mark.parametrize("precision", [Precision.fp32, Precision.bf16, Precision.fp16])
def test_what_a_step_keeps_is_counted_to_the_byte(
    kind: type[TrainStep], least: int, precision: Precision, batch: env.Batch
) -> None:
    verdict = resources.memory_slope(env.factory(kind, CPU), precision, batch)
    assert red(verdict, "bytes a step")
    grown = int(verdict.figure.split()[3].replace(",", ""))
    assert grown == 4 if kind is KeepsLosses else grown >= least


def test_garbage_that_waits_for_its_collector_is_no_growth(batch: env.Batch) -> None:
    class Cyclic(TrainStep):
        def __call__(self, batch: tuple[Tensor, Tensor]) -> Tensor:
            cycle: list[Any] = [batch[0].clone()]
            cycle.append(cycle)
            return super().__call__(batch)

    verdict = resources.memory_slope(env.factory(Cyclic, CPU), Precision.fp32, batch)
    assert verdict.outcome is Outcome.PASS, str(verdict)
