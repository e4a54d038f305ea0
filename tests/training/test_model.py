"""The real network is the one that the cfg's arithmetic describes."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from strategies import Network, Spoilt, bad_cfgs, bad_classes, networks
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from perfsuite.training.cfg import (
    TUTORIAL_CFG,
    CfgError,
    forward_flops,
    output_shapes,
    parameters,
)
from perfsuite.training.model import build_model

HEAD = (
    nn.AdaptiveAvgPool2d,
    nn.Flatten,
    nn.Linear,
    nn.ReLU,
    nn.Dropout,
    nn.Linear,
    nn.ReLU,
    nn.Dropout,
    nn.Linear,
)
BLOCK = (nn.Conv2d, nn.BatchNorm2d, nn.ReLU)
TUTORIAL = Network(TUTORIAL_CFG, (1, 28, 28), 10)


def real_shapes(model: nn.Sequential, images: torch.Tensor) -> Iterator[tuple[int, ...]]:
    """Yield the shape of one image after each block."""
    for layer in model:
        images = layer(images)
        if isinstance(layer, nn.ReLU) and images.ndim == 4:
            yield tuple(images.shape[1:])


def assert_described(network: Network, batch: int) -> None:
    model = build_model(network.cfg, network.classes).eval()
    images = torch.zeros(batch, *network.image)
    with torch.no_grad():
        assert tuple(real_shapes(model, images)) == output_shapes(network.cfg, network.image)
        with FlopCounterMode(display=False) as counter:
            logits = model(images)
    assert logits.shape == (batch, network.classes)
    per_image = forward_flops(network.cfg, network.image, network.classes)
    assert counter.get_total_flops() == batch * per_image
    trainable = [p.numel() for p in model.parameters() if p.requires_grad]
    assert sum(trainable) == parameters(network.cfg, network.classes)


@given(network=networks())
def test_the_model_is_what_the_cfg_describes(network: Network) -> None:
    assert_described(network, batch=2)


def test_the_tutorials_model_is_what_its_cfg_describes() -> None:
    assert_described(TUTORIAL, batch=1)


@given(network=networks())
def test_every_row_is_a_block_and_the_head_follows(network: Network) -> None:
    model = build_model(network.cfg, network.classes)
    assert [type(layer) for layer in model] == [*BLOCK * len(network.cfg), *HEAD]


@given(network=networks())
def test_a_convolution_has_what_its_row_says_and_no_bias(network: Network) -> None:
    convolutions = [m for m in build_model(network.cfg).modules() if isinstance(m, nn.Conv2d)]
    found = [
        (c.in_channels, c.out_channels, c.kernel_size, c.stride, c.padding) for c in convolutions
    ]
    wanted = [(i, o, (k, k), (s, s), (p, p)) for i, o, k, s, p in network.cfg]
    assert found == wanted
    assert all(convolution.bias is None for convolution in convolutions)


def test_the_head_is_as_wide_as_the_tutorials() -> None:
    linear = [m for m in build_model(TUTORIAL_CFG).modules() if isinstance(m, nn.Linear)]
    assert [(m.in_features, m.out_features) for m in linear] == [
        (1024, 1000),
        (1000, 1000),
        (1000, 10),
    ]
    assert all(m.bias is not None for m in linear)


def test_dropout_is_on_in_training_and_off_in_evaluation() -> None:
    model, images = build_model([(1, 2, 3, 1, 1)]), torch.rand(4, 1, 5, 5)
    assert [m.p for m in model.modules() if isinstance(m, nn.Dropout)] == [0.5, 0.5]
    assert not torch.equal(model(images), model(images))
    model.eval()
    assert torch.equal(model(images), model(images))


@given(spoilt=bad_cfgs | bad_classes())
def test_a_model_of_an_invalid_cfg_is_refused(spoilt: Spoilt) -> None:
    with pytest.raises(CfgError) as caught:
        build_model(spoilt.cfg, spoilt.classes)
    assert (caught.value.row, caught.value.field) == (spoilt.row, spoilt.field)
    assert spoilt.rule in caught.value.rule
