"""FLOPs of a model, held to what was worked out by hand."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

from perfsuite.measuring.identity import identity_of
from perfsuite.measuring.model_flops import ModelFlops, flops_of
from perfsuite.measuring.step_counts import count_step
from perfsuite.training.arm import Arm


def arm_of(compute: Callable[[Any], Tensor], batch: Any, **about: Any) -> Arm:
    def step(given: Any) -> Tensor:
        loss = compute(given).sum()
        loss.backward()
        return loss.detach()

    def batches() -> Iterator[Any]:
        while True:
            yield batch

    return Arm(step=step, batches=batches(), device=torch.device("cpu"), **about)


def needing_gradients(*shape: int) -> Tensor:
    return torch.ones(shape, requires_grad=True)


def ledger_flops(arm: Arm) -> int:
    return int(count_step(arm).counts["FLOPs float32"])


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("transposed", [False, True])
def test_a_convolution_is_counted_in_its_groups(groups: int, transposed: bool) -> None:
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    layer = kind(4, 8, kernel_size=3, padding=1, groups=groups)
    images = needing_gradients(2, 4, 5, 5)
    # Of each of two images 5 x 5 places, from 4 / groups channels to 8, by 3 x 3 weights; and as
    # many for either gradient.
    by_hand = 3 * 2 * (2 * 5 * 5) * (4 // groups * 8) * (3 * 3)
    arm = arm_of(layer, images)
    assert identity_of(arm)["flops"] == by_hand
    assert ledger_flops(arm) == by_hand


def test_only_gradients_that_are_wanted_are_counted() -> None:
    layer = nn.Conv2d(4, 8, kernel_size=1, groups=2)
    arm = arm_of(layer, torch.ones(2, 4, 5, 5))
    assert identity_of(arm)["flops"] == 2 * 2 * (2 * 5 * 5) * (2 * 8)


def test_the_scores_that_attention_computes_anew_are_not_counted() -> None:
    query = needing_gradients(2, 3, 16, 8)
    key, value = needing_gradients(2, 3, 12, 8), needing_gradients(2, 3, 12, 8)

    def attend(_: Any) -> Tensor:
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            attended: Tensor = scaled_dot_product_attention(query, key, value)
        return attended

    # Scores and their sums of values, and two gradients of each.
    by_hand = 6 * 2 * (2 * 3) * (16 * 12 * 8)
    arm = arm_of(attend, torch.ones(2))
    assert identity_of(arm)["flops"] == by_hand
    assert ledger_flops(arm) == by_hand


@pytest.mark.parametrize("about", ["flash", "efficient"])
def test_packed_sequences_have_a_backward_of_twice_their_forward(about: str) -> None:
    """Two sequences of 3 and 5 tokens, of 2 heads, 4 wide: what no CPU has a kernel for."""
    shape = (8, 2, 4) if about == "flash" else (1, 8, 2, 4)
    tokens = torch.ones(shape)
    ends = torch.tensor([0, 3, 8])
    lengths = (ends, ends, 5, 5)
    bias = () if about == "flash" else (None,)
    operators = torch.ops.aten
    forward = getattr(operators, f"_{about}_attention_forward").default
    backward = getattr(operators, f"_{about}_attention_backward").default
    once = flops_of(forward, (tokens, tokens, tokens, *bias, *lengths), {}, None)
    assert once == 2 * 2 * 2 * 4 * (3 * 3 + 5 * 5)
    kept = (*bias, tokens) if bias else (tokens, torch.ones(2))
    twice = flops_of(backward, (tokens, tokens, tokens, tokens, *kept, *lengths), {}, None)
    assert twice == 2 * once


def lstm_step() -> Arm:
    layer = nn.LSTM(4, 6)
    return arm_of(lambda batch: layer(batch)[0], torch.ones(5, 2, 4))


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch without oneDNN")
def test_of_an_operator_that_nobody_knows_the_flops_of_there_are_none() -> None:
    arm = lstm_step()
    found = identity_of(arm)
    assert found["flops"] is None
    assert arm.flops is None
    assert found["flops_unknown"] == ["mkldnn_rnn_layer", "mkldnn_rnn_layer_backward"]


def test_what_a_training_says_of_its_flops_stands() -> None:
    arm = lstm_step()
    arm.flops = 7.0
    found = identity_of(arm)
    assert found["flops"] == 7.0
    assert "flops_unknown" not in found


@pytest.mark.filterwarnings("ignore:TF32 acceleration on top of oneDNN")  # torch's, of its own flag
def test_a_network_that_is_taken_apart_is_counted() -> None:
    with torch.backends.mkldnn.flags(enabled=False):
        found = identity_of(lstm_step())
    # Four gates, of 5 x 2 tokens, from an input of 4 and a state of 6. The input needs no gradient,
    # nor does the first state, of which there is one for each of the 2 sequences.
    forward = 2 * 4 * 6 * (5 * 2) * (4 + 6)
    assert found["flops"] == pytest.approx(2 * forward + 2 * 4 * 6 * (4 * 2) * 6)


def test_a_product_in_inference_mode_is_counted() -> None:
    layer = nn.Linear(4, 3)
    with torch.inference_mode(), ModelFlops() as counted:
        layer(torch.ones(2, 4))
    assert counted.flops == 2 * 2 * 4 * 3


@pytest.mark.parametrize("reentrant", [None, False, True])
def test_what_a_checkpoint_computes_anew_is_not_counted(reentrant: bool | None) -> None:
    layers = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU())

    def compute(batch: Tensor) -> Tensor:
        inputs = batch.clone().requires_grad_()
        if reentrant is None:
            return layers(inputs)  # type: ignore[no-any-return]  # a module's call is untyped
        return checkpoint(layers, inputs, use_reentrant=reentrant)  # type: ignore[no-any-return]  # likewise

    assert identity_of(arm_of(compute, torch.ones(4, 8)))["flops"] == 2 * 3 * 2 * 4 * 8 * 8
