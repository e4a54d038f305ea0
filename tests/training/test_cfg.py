"""A cfg: what it describes is counted right, and what describes nothing is named."""

import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import (
    Network,
    Spoilt,
    bad_cfgs,
    bad_classes,
    bad_images,
    bad_rows,
    bad_ways,
    broken_chains,
    kernels_too_large,
    networks,
    not_integer_values,
    other_image_channels,
    too_small_values,
)

from perfsuite.training.cfg import (
    TUTORIAL_CFG,
    CfgError,
    check_cfg,
    check_positive,
    forward_flops,
    output_shapes,
    parameters,
    scale_width,
)

TAKES_CFG: dict[str, Callable[[Spoilt], object]] = {
    "check_cfg": lambda spoilt: check_cfg(spoilt.cfg),
    "output_shapes": lambda spoilt: output_shapes(spoilt.cfg, spoilt.image),
    "parameters": lambda spoilt: parameters(spoilt.cfg, spoilt.classes),
    "forward_flops": lambda spoilt: forward_flops(spoilt.cfg, spoilt.image, spoilt.classes),
    "scale_width": lambda spoilt: scale_width(spoilt.cfg, 1),
}
TAKES_IMAGE = ("output_shapes", "forward_flops")
TAKES_CLASSES = ("parameters", "forward_flops")


def raised_by(call: Callable[[], object]) -> CfgError:
    with pytest.raises(CfgError) as caught:
        call()
    return caught.value


def assert_names(error: CfgError, spoilt: Spoilt) -> None:
    assert isinstance(error, ValueError)
    assert (error.row, error.field) == (spoilt.row, spoilt.field)
    # By type too: True == 1 == 1.0.
    assert (type(error.value), error.value) == (type(spoilt.value), spoilt.value)
    assert spoilt.rule in error.rule
    where = "cfg: " if spoilt.row is None else f"cfg row {spoilt.row}: "
    assert str(error).startswith(where)
    named = repr(spoilt.value) if spoilt.field is None else f"{spoilt.field} = {spoilt.value!r}"
    assert named in str(error)
    assert str(error).endswith(error.rule)


def test_the_tutorials_cfg_is_the_tutorials_own() -> None:
    assert [list(row) for row in TUTORIAL_CFG] == [
        [1, 32, 3, 1, 1],
        [32, 64, 3, 1, 1],
        [64, 64, 2, 2, 0],
        [64, 128, 3, 1, 1],
        [128, 128, 3, 1, 1],
        [128, 128, 3, 1, 1],
        [128, 128, 2, 2, 0],
        [128, 256, 3, 1, 1],
        [256, 256, 2, 1, 0],
        [256, 512, 3, 1, 1],
        [512, 512, 3, 1, 1],
        [512, 512, 3, 1, 1],
        [512, 512, 2, 2, 0],
        [512, 1024, 3, 1, 1],
    ]


def test_the_tutorials_figures() -> None:
    assert parameters(TUTORIAL_CFG) == 14_736_266
    assert forward_flops(TUTORIAL_CFG) == 767_030_944
    assert forward_flops(TUTORIAL_CFG) - 2 * (1024 * 1000 + 1000 * 1000 + 1000 * 10) == 762_962_944
    assert output_shapes(TUTORIAL_CFG)[-1] == (1024, 3, 3)


def test_one_row_counted_by_hand() -> None:
    cfg = [[2, 3, 3, 2, 1]]  # 5x7 becomes 3x4
    assert output_shapes(cfg, (2, 5, 7)) == ((3, 3, 4),)
    head = 2 * (3 * 1000 + 1000 * 1000 + 1000 * 4)
    assert forward_flops(cfg, (2, 5, 7), classes=4) == 2 * (2 * 3 * 3 * 3) * (3 * 4) + head
    # Kernels, then BatchNorm's weight and bias, then weights and biases of the linear layers.
    assert parameters(cfg, classes=4) == 54 + 6 + (3_000 + 1_000) + 1_001_000 + 4_004


@given(network=networks())
def test_a_valid_cfg_comes_back_as_tuples(network: Network) -> None:
    rows = check_cfg(network.cfg)
    assert rows == tuple(tuple(row) for row in network.cfg)
    assert check_cfg(rows) == rows
    assert check_positive("classes", network.classes) == network.classes


@given(network=networks())
def test_a_valid_image_never_shrinks_to_nothing(network: Network) -> None:
    shapes = output_shapes(network.cfg, network.image)
    assert [channels for channels, _, _ in shapes] == [row[1] for row in network.cfg]
    assert all(height >= 1 and width >= 1 for _, height, width in shapes)


@pytest.mark.parametrize("name", TAKES_CFG)
@given(spoilt=bad_cfgs)
def test_whatever_takes_a_cfg_refuses_a_bad_one(name: str, spoilt: Spoilt) -> None:
    assert_names(raised_by(lambda: TAKES_CFG[name](spoilt)), spoilt)


@pytest.mark.parametrize("name", TAKES_IMAGE)
@given(spoilt=bad_ways)
def test_whatever_takes_an_image_refuses_a_bad_one(name: str, spoilt: Spoilt) -> None:
    assert_names(raised_by(lambda: TAKES_CFG[name](spoilt)), spoilt)


@pytest.mark.parametrize("name", TAKES_CLASSES)
@given(spoilt=bad_classes())
def test_whatever_takes_classes_refuses_bad_ones(name: str, spoilt: Spoilt) -> None:
    assert_names(raised_by(lambda: TAKES_CFG[name](spoilt)), spoilt)
    assert_names(raised_by(lambda: check_positive("classes", spoilt.classes)), spoilt)


@pytest.mark.parametrize(
    ("faults", "name"),
    [
        (bad_rows(), "check_cfg"),
        (not_integer_values(), "check_cfg"),
        (too_small_values(), "check_cfg"),
        (broken_chains(), "check_cfg"),
        (kernels_too_large(), "output_shapes"),
        (other_image_channels(), "output_shapes"),
        (bad_images(), "output_shapes"),
    ],
    ids=["row", "not-an-integer", "too-small", "chain", "shrinks", "channels", "image"],
)
@given(data=st.data())
def test_each_fault_is_named(
    faults: st.SearchStrategy[Spoilt], name: str, data: st.DataObject
) -> None:
    spoilt = data.draw(faults)
    assert_names(raised_by(lambda: TAKES_CFG[name](spoilt)), spoilt)


def rows_one_by_one() -> Iterator[tuple[int, ...]]:
    yield from TUTORIAL_CFG


@pytest.mark.parametrize(
    ("cfg", "rule"),
    [
        ([], "must have at least one row"),
        ((), "must have at least one row"),
        ("tutorial", "must be a sequence of rows"),
        (b"tutorial", "must be a sequence of rows"),
        (None, "must be a sequence of rows"),
        (14, "must be a sequence of rows"),
        ({0: (1, 32, 3, 1, 1)}, "must be a sequence of rows"),
        ({(1, 32, 3, 1, 1)}, "must be a sequence of rows"),
        (rows_one_by_one(), "must be a sequence of rows"),
    ],
    ids=["empty-list", "empty-tuple", "str", "bytes", "none", "int", "dict", "set", "generator"],
)
@pytest.mark.parametrize("name", TAKES_CFG)
def test_what_is_no_cfg_at_all_is_refused(name: str, cfg: Any, rule: str) -> None:
    spoilt = Spoilt(cfg, (1, 28, 28), 10, row=None, field=None, value=cfg, rule=rule)
    assert_names(raised_by(lambda: TAKES_CFG[name](spoilt)), spoilt)


def test_an_error_reads_as_a_sentence() -> None:
    cfg = [[1, 4, 3, 1, 1], [4, 4, 3, 0, 1]]
    assert str(raised_by(lambda: check_cfg(cfg))) == "cfg row 1: stride = 0: must be at least 1"


@pytest.mark.parametrize("image", [(1, 9, 2), (1, 2, 9)], ids=["width", "height"])
def test_either_side_alone_may_be_too_small(image: tuple[int, int, int]) -> None:
    error = raised_by(lambda: output_shapes([[1, 1, 3, 1, 0]], image))
    assert (error.row, error.field, error.value) == (0, "kernel_size", 3)


def test_the_last_pixel_that_fits_is_used() -> None:
    assert output_shapes([[1, 1, 3, 1, 0]], (1, 3, 3)) == ((1, 1, 1),)


def test_an_eighth_of_the_width_keeps_all_else() -> None:
    scaled = scale_width(TUTORIAL_CFG, 8)
    assert [row[1] for row in scaled] == [4, 8, 8, 16, 16, 16, 16, 32, 32, 64, 64, 64, 64, 128]
    assert [row[0] for row in scaled] == [1, 4, 8, 8, 16, 16, 16, 16, 32, 32, 64, 64, 64, 64]
    assert [row[2:] for row in scaled] == [row[2:] for row in TUTORIAL_CFG]
    assert check_cfg(scaled) == scaled


@given(network=networks(), factor=st.integers(1, 5))
def test_scaling_undoes_a_multiplied_width(network: Network, factor: int) -> None:
    rows = check_cfg(network.cfg)
    wide = [
        (i if index == 0 else i * factor, o * factor, k, s, p)
        for index, (i, o, k, s, p) in enumerate(rows)
    ]
    assert scale_width(wide, factor) == rows


def test_a_width_that_does_not_divide_is_named() -> None:
    error = raised_by(lambda: scale_width([[1, 8, 3, 1, 1], [8, 12, 3, 1, 1]], 8))
    assert (error.row, error.field, error.value) == (1, "out_channels", 12)
    assert "multiple of 8" in str(error)


def test_the_cfg_module_needs_no_torch() -> None:
    # None there makes every import of torch fail.
    code = (
        "import sys; sys.modules['torch'] = None;"
        "import perfsuite.training.cfg as c; c.forward_flops(c.TUTORIAL_CFG)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("divisor", [0, -8, 2.0, True])
def test_a_divisor_that_is_no_positive_integer_is_named(divisor: int) -> None:
    with pytest.raises(CfgError, match=r"divisor = .*: must be a positive integer"):
        scale_width(TUTORIAL_CFG, divisor)


def test_an_error_crosses_a_process() -> None:
    with pytest.raises(CfgError) as caught:
        check_cfg([[1, 2, 3, 1, -1]])
    copy = pickle.loads(pickle.dumps(caught.value))
    assert str(copy) == str(caught.value)
    assert (copy.row, copy.field, copy.value) == (0, "padding", -1)
