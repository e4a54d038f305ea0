"""Collectives of a step on ranks that are not there: each is seen, and one too many is told."""

import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from itertools import count
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import _functional_collectives as functional
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)
from torch.nn.parallel import DistributedDataParallel

from perfsuite import FakeRanksError, Precision, Training, TrainingError, Workload
from perfsuite import count_collectives as counted
from perfsuite.judging.counts import Ledger, changes, told
from perfsuite.measuring import fake_ranks as room
from perfsuite.measuring.fake_ranks import fake_ranks

WIDTH, LAYERS = 512, 4
WEIGHTS = LAYERS * (WIDTH + 1) * WIDTH
CPU = torch.device("cpu")

Wrap = Callable[[nn.Sequential], nn.Module]
Extra = Callable[[nn.Module, Tensor], Any]


def workload(wrap: Wrap, extra: Extra = lambda *_: None, *, no_sync: bool = False) -> Workload:
    """Return a training of four layers; `extra` is called between loss and backward."""

    def make(precision: Precision, device: torch.device, seed: int) -> Training:
        model = wrap(nn.Sequential(*(nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS))))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

        def step(batch: Tensor) -> Tensor:
            optimizer.zero_grad()
            with model.no_sync() if no_sync else nullcontext():  # type: ignore[operator]  # DDP's
                loss: Tensor = model(batch).square().mean()
                extra(model, loss)
                loss.backward()
            optimizer.step()
            return loss

        return Training(step=step, batches=[torch.ones(2, WIDTH)], state=[model, optimizer])

    return Workload(name="layers", make=make)


def alone(model: nn.Sequential) -> nn.Module:
    return model


def ddp(model: nn.Sequential) -> nn.Module:
    return DistributedDataParallel(model)


def two_parts(model: nn.Sequential) -> nn.Module:
    return nn.Sequential(ddp(model[:2]), ddp(model[2:]))


def one_part(model: nn.Sequential) -> nn.Module:
    return nn.Sequential(ddp(model[:2]), model[2:])


def sharded(
    model: nn.Sequential, left_out: int | None = None, policy: MixedPrecisionPolicy | None = None
) -> nn.Module:
    policy, ignored = policy or MixedPrecisionPolicy(), set[nn.Parameter]()
    for index, layer in enumerate(model):
        if index == left_out:
            ignored.update(layer.parameters())
        else:
            fully_shard(layer, mp_policy=policy)
    fully_shard(model, mp_policy=policy, ignored_params=ignored)
    return model


def in_bfloat16(model: nn.Sequential) -> nn.Module:
    bfloat16 = torch.bfloat16
    policy = MixedPrecisionPolicy(param_dtype=bfloat16, reduce_dtype=torch.float32)
    return sharded(model, policy=policy)


def gather_again(model: nn.Module, _: Tensor) -> None:
    model[0].unshard()  # type: ignore[index]  # the first layer
    model[0].reshard()  # type: ignore[index]  # likewise


def reduce_a_metric(_: nn.Module, loss: Tensor) -> None:
    dist.all_reduce(loss.detach().clone())


def at_8(*given: Any, **named: Any) -> Ledger:
    return counted(workload(*given, **named), ranks=[8])


def lines(before: Ledger, after: Ledger) -> str:
    return "\n".join(told(changes(before, after)))


def test_ddp_reduces_the_gradients_once_on_any_number_of_ranks() -> None:
    found = counted(workload(ddp))
    assert found.counts == {
        "backward: all_reduce float32": 2,  # buckets, of which the last is a small one
        "bytes backward: all_reduce float32": 4 * WEIGHTS,
        "parameters on a rank": WEIGHTS,
    }
    assert found.about["ranks"] == "8, 64, 512"
    assert found.unsteady == []


def test_fsdp_gathers_twice_and_scatters_once_a_layer_and_keeps_a_share() -> None:
    found = counted(workload(in_bfloat16))
    assert found.counts == {
        "forward: all_gather bfloat16": LAYERS,
        "bytes forward: all_gather bfloat16": 2 * WEIGHTS,
        "backward: all_gather bfloat16": LAYERS,
        "bytes backward: all_gather bfloat16": 2 * WEIGHTS,
        "backward: reduce_scatter float32": LAYERS,
        "bytes backward: reduce_scatter float32": 4 * WEIGHTS,
        **{f"parameters on a rank at {each} ranks": WEIGHTS // each for each in (8, 64, 512)},
    }


def test_counts_are_the_same_twice() -> None:
    assert at_8(sharded) == at_8(sharded)


@pytest.mark.parametrize(
    ("call", "name", "size"),
    [
        (dist.all_reduce, "all_reduce float32", 32),
        (lambda x: dist.all_reduce(x.bfloat16(), async_op=True), "all_reduce bfloat16", 16),
        (lambda x: dist.all_gather([x.clone() for _ in range(8)], x), "all_gather float32", 256),
        (lambda x: dist.all_gather_into_tensor(x.repeat(8), x), "all_gather float32", 256),
        (
            lambda x: dist.reduce_scatter(x[:1].clone(), list(x[:, None])),
            "reduce_scatter float32",
            32,
        ),
        (lambda x: dist.reduce_scatter_tensor(x[:1].clone(), x), "reduce_scatter float32", 32),
        (lambda x: dist.all_to_all_single(x.clone(), x), "all_to_all float32", 32),
        (lambda x: dist.broadcast(x, 0), "broadcast float32", 32),
        (lambda x: dist.reduce(x, 0), "reduce float32", 32),
        (lambda x: dist.send(x, 1), "send float32", 32),
        (lambda x: dist.recv(x, 1), "recv float32", 32),
        (lambda _: dist.barrier(), "barrier", None),
        (
            lambda x: functional.all_reduce(x, "sum", everybody()).add(1),
            "all_reduce float32",
            32,
        ),
    ],
)
def test_a_call_of_ones_own_is_counted(
    call: Callable[[Tensor], Any], name: str, size: int | None
) -> None:
    expected = {f"between: {name}": 1, "parameters on a rank": WEIGHTS}
    if size is not None:
        expected[f"bytes between: {name}"] = size
    found = at_8(alone, lambda *_: call(torch.ones(8)))
    assert found.counts == expected


def test_a_model_that_is_split_by_its_tensors() -> None:
    def split(model: nn.Sequential) -> nn.Module:
        plan = {"0": ColwiseParallel(), "1": RowwiseParallel()}
        return parallelize_module(model, init_device_mesh("cpu", (dist.get_world_size(),)), plan)

    counts = at_8(split).counts
    assert counts["forward: all_reduce float32"] == 1
    assert counts["bytes forward: all_reduce float32"] == 4 * 2 * WIDTH


@pytest.mark.parametrize(
    ("healthy", "faulty", "expected"),
    [
        (
            [sharded],
            [sharded, gather_again],
            ["+1 between: all_gather float32 (0 -> 1)", "model[0].unshard()", "gathered again"],
        ),
        (
            [ddp],
            [ddp, reduce_a_metric],
            ["+1 between: all_reduce float32 (0 -> 1)", "dist.all_reduce(loss.", "of a metric?"],
        ),
        (
            [two_parts],
            [one_part],
            ["-2 backward: all_reduce float32 (4 -> 2)", "the gradient of", "not averaged"],
        ),
        (
            [sharded],
            [lambda model: sharded(model, left_out=1)],
            ["-1 backward: reduce_scatter float32 (4 -> 3)", "+229,824 parameters on a rank"],
        ),
        (
            [in_bfloat16],
            [sharded],
            ["4 forward: all_gather float32, and no more bfloat16", "loss: Tensor = model(batch)"],
        ),
    ],
    ids=["gathered again", "a metric", "a part without DDP", "not sharded", "in float32"],
)
def test_a_fault_is_told_and_its_healthy_twin_is_silent(
    healthy: Sequence[Any], faulty: Sequence[Any], expected: Sequence[str]
) -> None:
    before = at_8(*healthy)
    text = lines(before, at_8(*faulty))
    assert [each for each in expected if each not in text] == [], text
    # The cause is told once, where the calls are, and not again where their bytes are.
    assert not any("bytes" in line and "?" in line for line in text.splitlines())
    assert lines(before, at_8(*healthy)) == ""


@pytest.mark.parametrize(("wrap", "no_sync"), [(alone, False), (ddp, True)])
def test_a_step_that_calls_none_is_an_error(wrap: Wrap, no_sync: bool) -> None:
    with pytest.raises(TrainingError, match="calls no collective as one of 8 ranks"):
        at_8(wrap, no_sync=no_sync)


def test_a_name_tells_on_how_many_ranks_a_count_is_its_own() -> None:
    found = counted(workload(alone, to_all), ranks=[2, 3])
    assert found.counts["between: broadcast float32 at 2 ranks"] == 2
    assert found.counts["between: broadcast float32 at 3 ranks"] == 3
    assert found.counts["between: barrier"] == 1


def everybody() -> dist.ProcessGroup:
    assert dist.group.WORLD is not None
    return dist.group.WORLD


def to_all(*_: Any) -> None:
    dist.barrier()
    for rank in range(dist.get_world_size()):
        dist.broadcast(torch.ones(1), rank)


def test_what_differs_from_one_step_to_the_next_is_unsteady() -> None:
    steps = count()

    def now_and_then(*_: Any) -> None:
        if next(steps) % 2:
            reduce_a_metric(nn.Identity(), torch.ones(()))

    found = counted(workload(alone, now_and_then), ranks=[8, 64])
    assert found.unsteady == [f"{each}between: all_reduce float32" for each in ("", "bytes ")]
    assert found.counts == {"parameters on a rank": WEIGHTS}


def test_nothing_is_left_of_a_group_even_where_making_fails() -> None:
    def fails(_: nn.Sequential) -> nn.Module:
        raise ArithmeticError(f"one of {dist.get_world_size()}")

    hook = sys.excepthook
    with pytest.raises(ArithmeticError, match="one of 8"):
        at_8(fails)
    assert not dist.is_initialized()
    assert sys.excepthook is hook


def test_a_group_that_is_there_is_left_alone() -> None:
    with fake_ranks(2):
        with pytest.raises(TrainingError, match="there is a default process group already"):
            at_8(ddp)
        assert dist.get_world_size() == 2


def test_a_torch_without_fake_groups_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(room, "import_module", gone)
    with pytest.raises(FakeRanksError, match="has no fake process group: No module named"):
        at_8(ddp)
