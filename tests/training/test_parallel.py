"""A model over ranks, which are not there here: how it is wrapped, and what is refused.

What two real ones compute is in probes/test_across_ranks.py.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from perfsuite.devices.precision import Precision
from perfsuite.measuring.fake_ranks import fake_ranks
from perfsuite.training.batches import TrainingError
from perfsuite.training.parallel import is_sharded, laid_as, local_of, parallel_of
from perfsuite.training.step import TrainStep

BATCH = (torch.ones(4, 8), torch.zeros(4, dtype=torch.long))
LAYERS = {"0": "Linear", "1": "BatchNorm1d", "2.0": "Linear", "2.1": "LayerNorm"}


@pytest.fixture
def two_ranks() -> Iterator[None]:
    with fake_ranks(2):
        yield


def network() -> nn.Sequential:
    blocks = nn.ModuleList([nn.Linear(8, 8), nn.LayerNorm(8)])
    return nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Sequential(*blocks))


def step_of(model: nn.Module, how: str | None, precision: Precision = Precision.fp32) -> TrainStep:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return TrainStep(model, optimizer, precision=precision, parallel=how)  # type: ignore[arg-type]  # one of them


@pytest.mark.usefixtures("two_ranks")
def test_ddp_wraps_the_model_and_leaves_its_weights() -> None:
    step = step_of(network(), "ddp")
    assert isinstance(step.model, DistributedDataParallel)
    assert not any(map(is_sharded, step.model.parameters()))
    assert parallel_of([step.model]) == "ddp"
    step(BATCH)


@pytest.mark.usefixtures("two_ranks")
def test_fsdp2_shards_all_weights_and_the_optimizer_has_them() -> None:
    step = step_of(network(), "fsdp2")
    weights = list(step.model.parameters())
    assert all(map(is_sharded, weights))
    assert [len(local_of(each)) for each in weights] == [4] * len(weights)
    (group,) = step.optimizer.param_groups
    assert all(one is other for one, other in zip(group["params"], weights, strict=True))
    assert parallel_of([step.model]) == "fsdp2"
    before = [local_of(each.detach()).clone() for each in weights]
    step(BATCH)
    assert any(not torch.equal(a, local_of(b)) for a, b in zip(before, weights, strict=True))


@pytest.mark.usefixtures("two_ranks")
@pytest.mark.parametrize(
    ("precision", "dtype"), [(Precision.fp32, "float32"), (Precision.bf16, "bfloat16")]
)
def test_fsdp2_casts_in_autocast_s_place(precision: Precision, dtype: str) -> None:
    seen: dict[str, tuple[str, str, bool]] = {}
    step = step_of(network(), "fsdp2", precision)

    def look(name: str, layer: Any, inputs: tuple[Tensor]) -> None:
        dtypes = (str(layer.weight.dtype)[6:], str(inputs[0].dtype)[6:])
        seen[name] = (*dtypes, torch.is_autocast_enabled("cpu"))

    for name, layer in step.model.named_modules():
        if name in LAYERS:
            layer.register_forward_pre_hook(partial(look, name))
    loss = step(BATCH)
    assert seen == {
        name: ("float32" if kind == "BatchNorm1d" else dtype, dtype, False)
        for name, kind in LAYERS.items()
    }
    assert loss.dtype is torch.float32
    gradients = {each.grad.dtype for each in step.model.parameters() if each.grad is not None}
    assert gradients == {torch.float32}


@pytest.mark.usefixtures("two_ranks")
def test_what_is_the_same_on_all_ranks_is_laid_as_a_sharded_weight_is() -> None:
    (weight, *_) = step_of(network(), "fsdp2").model.parameters()
    whole = torch.arange(64.0).reshape(8, 8)
    laid = laid_as(whole, weight)
    assert torch.equal(local_of(laid), whole[:4])
    assert laid_as(whole, whole) is whole


def test_without_a_process_group_ranks_cannot_train() -> None:
    with pytest.raises(TrainingError, match=r"^parallel='ddp' needs a process group: start"):
        step_of(network(), "ddp")
    assert parallel_of([network()]) is None


@pytest.mark.usefixtures("two_ranks")
def test_what_cannot_be_spread_is_refused() -> None:
    model = network()
    step = step_of(model, None)
    optimizer = torch.optim.Adam(model.parameters())
    step.optimizer = optimizer
    step(BATCH)
    with pytest.raises(TrainingError, match="give it an optimizer that has taken no step"):
        TrainStep(model, optimizer, parallel="fsdp2")
    with pytest.raises(TrainingError, match=r"^parallel='ddp' is captured as no graph"):
        TrainStep(model, optimizer, parallel="ddp", graph=True)
