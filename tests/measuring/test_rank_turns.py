"""Turns of ranks in one process, a group of one: what is left out, and what is said of it."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

import perfsuite.benchmarks
from perfsuite.devices.cpu import Cpu
from perfsuite.devices.precision import Precision
from perfsuite.judging.gates import Outcome
from perfsuite.judging.thresholds import load_thresholds
from perfsuite.measuring.bench import Bench
from perfsuite.measuring.collective_replay import Replay, noted, replayed
from perfsuite.measuring.machine import Machine, machine
from perfsuite.measuring.rank_turns import take_rank_turns, take_scaling_turns
from perfsuite.measuring.tracing import Call
from perfsuite.measuring.turns import Alone
from perfsuite.measuring.worlds import World, worlds_of
from perfsuite.records.notes import Notes
from perfsuite.training.batches import TrainingError
from perfsuite.training.workload import Training, Workload

FP32, SAMPLES = Precision.fp32, 4
NO_MEMORY = "can't allocate memory"  # as a CPU says it


@pytest.fixture
def here() -> Iterator[Machine]:
    store = dist.HashStore()  # type: ignore[attr-defined]  # torch exports it untyped
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield machine("cpu")
    dist.destroy_process_group()


def workload(large: int = 0, *, until: str = "step") -> Workload:
    """Return trainings that average their gradients by hand.

    There is no memory for one of them, as they are counted; `until` is where it ends: when it is
    "made", its "step" or its "snapshot".
    """
    made = count(1)

    class Large:
        """State that is too large to be copied."""

        def state_dict(self) -> dict[str, Any]:
            raise RuntimeError(NO_MEMORY)

        def load_state_dict(self, state: dict[str, Any]) -> None:
            """Have none."""

    def make(*_: Any) -> Training:
        fits = next(made) != large
        if not fits and until == "made":
            raise RuntimeError(NO_MEMORY)
        model = nn.Linear(8, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

        def step(batch: Tensor) -> Tensor:
            if not fits and until == "step":
                raise RuntimeError(NO_MEMORY)
            optimizer.zero_grad()
            loss: Tensor = model(batch).square().mean()
            loss.backward()
            for parameter in model.parameters():
                assert parameter.grad is not None
                dist.all_reduce(parameter.grad)
            optimizer.step()
            return loss

        state: list[Any] = [model, optimizer]
        if not fits and until == "snapshot":
            state.append(Large())
        return Training(step=step, batches=[torch.ones(SAMPLES, 8)], state=state)

    return Workload(name="linear", make=make)


def bench(on: Machine, of: Workload) -> Bench:
    return Bench(
        Notes("test_it", markers=[]),
        machine=on,
        workload=of,
        thresholds=load_thresholds(Path("none"), on.hardware.key),
        turns=Alone(lambda *_: None, budget_s=0.0),
    )


@pytest.mark.parametrize("until", ["made", "step", "snapshot"])
def test_a_batch_that_one_alone_has_no_memory_for_is_told_and_not_gated(
    here: Machine, until: str
) -> None:
    # One is looked at, the next one is all ranks', and then there is one alone for each batch.
    perf = bench(here, workload(large=3, until=until))
    weak, strong = take_scaling_turns(perf, FP32)
    assert weak.efficiency is not None
    assert strong.efficiency is None
    assert strong.why_not == "4 samples do not fit into the memory of one rank"
    verdict = perf.notes.verdicts[0]
    assert (verdict.gate, verdict.outcome) == ("strong_scaling", Outcome.NOT_GATED)
    assert verdict.explanation == strong.why_not


def test_what_only_some_ranks_send_to_each_other_is_not_repeated() -> None:
    replay = Replay()
    sent = Call(
        phase="forward", name="send", namespace="c10d", inputs=(), outputs=(), site="", flops=0,
        in_module=False, recorded=False, of_attention=False, fresh_bytes=0, drawn=0, drawn_from=0,
    )  # fmt: skip

    replay.note(sent, (), {}, None)
    assert replay.unknown == {"send"}


def test_collectives_are_noted_with_their_sizes_and_repeated(here: Machine) -> None:
    arm = workload().arm(FP32, here.device.place)
    replay = noted(arm)
    assert len(replay) == 2
    assert not replay.unknown
    shapes = sorted(tuple(tensor.shape) for tensor in replay.tensors)
    assert shapes == [(1,), (1, 8)]
    again = replayed(replay, here.device.place)
    assert again.step(*again.take(1)).item() == 0.0


def test_a_step_that_fails_by_itself_is_told_with_its_rank(here: Machine) -> None:
    def make(*_: Any) -> Training:
        def step(batch: Tensor) -> Tensor:
            if dist.get_backend() != "gloo":
                raise RuntimeError("another backend\nthan I know")
            return batch.sum()

        return Training(step=step, batches=[torch.ones(2)], state=[])

    perf = bench(here, Workload(name="choosy", make=make))
    told = r"rank 0 cannot take a step by itself \(detached\): another backend$"
    with pytest.raises(TrainingError, match=told):
        take_rank_turns(perf, FP32)
    assert dist.get_backend() == "gloo"


def test_an_arm_is_in_its_world_from_its_batches_on(here: Machine) -> None:
    arm = workload().arm(FP32, Cpu().place)
    with worlds_of(here.ranks) as worlds:
        apart = worlds.settled(arm, World.DETACHED, "apart")
        together = worlds.settled(workload().arm(FP32, Cpu().place), World.REAL, "together")
        seen = []
        for each in (apart, together, apart):
            each.take(1)
            seen.append(dist.get_backend())
    assert seen == ["perfsuite_instant", "gloo", "perfsuite_instant"]
    assert dist.get_backend() == "gloo"


def test_batches_are_read_in_the_world_of_their_arm(here: Machine) -> None:
    def read() -> Iterator[Tensor]:  # as an IterableDataset does, which asks for its rank
        while True:
            seen.append(dist.get_backend())
            yield torch.ones(SAMPLES, 8)

    seen: list[str] = []
    arm = workload().arm(FP32, Cpu().place)
    with worlds_of(here.ranks) as worlds:
        apart = worlds.settled(replace(arm, batches=read()), World.DETACHED, "apart")
        for _ in range(2):
            apart.take(1)
            worlds.enter(World.REAL)
    assert seen == ["perfsuite_instant"] * 2


@pytest.mark.parametrize("name", ["rank_times", "rank_scaling", "rank_convergence"])
def test_benchmarks_of_ranks_are_left_out_where_there_is_one(name: str) -> None:
    marks = {mark.name for mark in getattr(perfsuite.benchmarks, f"test_{name}").pytestmark}
    assert marks == {"many_ranks", "one_tree"}
