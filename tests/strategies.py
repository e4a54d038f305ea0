"""Hypothesis strategies: small networks that are valid by construction, and spoilt ones."""

from typing import Any, NamedTuple

from hypothesis import settings
from hypothesis import strategies as st

from perfsuite.training.cfg import FIELDS, Cfg, CfgRow, Image

MOST_CHANNELS = 6
MOST_KERNEL = 4
MOST_STRIDE = 3
MOST_PADDING = 2
MOST_SIDE = 12

# The same examples in every run: a test that fails on one machine fails on all of them.
settings.register_profile("repeatable", derandomize=True, deadline=None, max_examples=50)
if settings.get_current_profile_name() in {"default", "ci"}:  # not one asked for by name
    settings.load_profile("repeatable")


class Network(NamedTuple):
    """Arguments that describe a network, and the image that goes through it."""

    cfg: Cfg
    image: Image
    classes: int


class Spoilt(NamedTuple):
    """A network with one fault, and what the CfgError for it must name."""

    cfg: Any
    image: Any
    classes: Any
    row: int | None
    field: str | None
    value: Any
    rule: str


sides = st.integers(1, MOST_SIDE)
channels = st.integers(1, MOST_CHANNELS)
classes = st.integers(1, 12)
not_integers = st.sampled_from([1.0, 2.5, "3", None, True, False, (1,), 1 + 0j])


def least(field: str) -> int:
    return 0 if field == "padding" else 1


def sides_after(side: int, row: CfgRow) -> int:
    _, _, kernel_size, stride, padding = row
    return (side + 2 * padding - kernel_size) // stride + 1


@st.composite
def networks(draw: st.DrawFn, *, min_rows: int = 1, max_rows: int = 4) -> Network:
    """Draw each row so that its kernel fits in what the rows before it left of the image."""
    image = (draw(channels), draw(sides), draw(sides))
    inputs, height, width = image
    rows: list[CfgRow] = []
    for _ in range(draw(st.integers(min_rows, max_rows))):
        padding = draw(st.integers(0, MOST_PADDING))
        fits = min(MOST_KERNEL, min(height, width) + 2 * padding)
        row = (
            inputs,
            draw(channels),
            draw(st.integers(1, fits)),
            draw(st.integers(1, MOST_STRIDE)),
            padding,
        )
        inputs, height, width = row[1], sides_after(height, row), sides_after(width, row)
        rows.append(row)
    # Rows from TOML and JSON are lists.
    cfg: Cfg = draw(st.sampled_from([tuple(rows), rows, [list(row) for row in rows]]))
    return Network(cfg, image, draw(classes))


def _replaced(cfg: Cfg, row: int, new: Any) -> list[Any]:
    return [*cfg[:row], new, *cfg[row + 1 :]]


def _with_value(cfg: Cfg, row: int, field: str, value: Any) -> list[Any]:
    index = FIELDS.index(field)
    return _replaced(cfg, row, [*cfg[row][:index], value, *cfg[row][index + 1 :]])


@st.composite
def bad_rows(draw: st.DrawFn) -> Spoilt:
    network = draw(networks())
    index = draw(st.integers(0, len(network.cfg) - 1))
    good = list(network.cfg[index])
    bad = draw(
        st.sampled_from(
            [
                good[:-1],
                [*good, 1],
                good * 2,
                [],
                "31110",
                b"\x01\x01\x01\x01\x00",
                5,
                None,
                set(good),
            ]
        )
    )
    cfg = _replaced(network.cfg, index, bad)
    return Spoilt(cfg, network.image, network.classes, index, None, bad, "five integers")


@st.composite
def not_integer_values(draw: st.DrawFn) -> Spoilt:
    network = draw(networks())
    index = draw(st.integers(0, len(network.cfg) - 1))
    field, bad = draw(st.sampled_from(FIELDS)), draw(not_integers)
    cfg = _with_value(network.cfg, index, field, bad)
    return Spoilt(cfg, network.image, network.classes, index, field, bad, "must be an integer")


@st.composite
def too_small_values(draw: st.DrawFn) -> Spoilt:
    network = draw(networks())
    index = draw(st.integers(0, len(network.cfg) - 1))
    field = draw(st.sampled_from(FIELDS))
    bad = least(field) - draw(st.integers(1, 3))
    cfg = _with_value(network.cfg, index, field, bad)
    rule = f"must be at least {least(field)}"
    return Spoilt(cfg, network.image, network.classes, index, field, bad, rule)


@st.composite
def broken_chains(draw: st.DrawFn) -> Spoilt:
    network = draw(networks(min_rows=2))
    index = draw(st.integers(1, len(network.cfg) - 1))
    before = network.cfg[index - 1][1]
    bad = draw(channels.filter(lambda n: n != before))
    cfg = _with_value(network.cfg, index, "in_channels", bad)
    rule = f"must equal out_channels of row {index - 1}, {before}"
    return Spoilt(cfg, network.image, network.classes, index, "in_channels", bad, rule)


@st.composite
def kernels_too_large(draw: st.DrawFn) -> Spoilt:
    network = draw(networks())
    index = draw(st.integers(0, len(network.cfg) - 1))
    _, height, width = network.image
    for in_channels, out_channels, kernel_size, stride, padding in network.cfg[:index]:
        row = (in_channels, out_channels, kernel_size, stride, padding)
        height, width = sides_after(height, row), sides_after(width, row)
    padding = network.cfg[index][4]
    bad = min(height, width) + 2 * padding + draw(st.integers(1, 3))
    cfg = _with_value(network.cfg, index, "kernel_size", bad)
    rule = f"padded {height}x{width} image: it shrinks to nothing"
    return Spoilt(cfg, network.image, network.classes, index, "kernel_size", bad, rule)


@st.composite
def other_image_channels(draw: st.DrawFn) -> Spoilt:
    network = draw(networks())
    value = network.cfg[0][0]
    other = draw(channels.filter(lambda n: n != value))
    image = (other, *network.image[1:])
    rule = f"must equal the image's channels, {other}"
    return Spoilt(network.cfg, image, network.classes, 0, "in_channels", value, rule)


@st.composite
def bad_images(draw: st.DrawFn) -> Spoilt:
    network = draw(networks())
    index = draw(st.integers(0, 2))
    good = list(network.image)
    spoilt_side = [*good[:index], draw(not_integers | st.integers(-2, 0)), *good[index + 1 :]]
    bad = draw(st.sampled_from([spoilt_side, good[:-1], [*good, 1], [], "1xx", 28, None]))
    rule = "three positive integers (channels, height, width)"
    return Spoilt(network.cfg, bad, network.classes, None, "image", bad, rule)


@st.composite
def bad_classes(draw: st.DrawFn) -> Spoilt:
    network = draw(networks())
    bad = draw(not_integers | st.integers(-2, 0))
    rule = "must be a positive integer"
    return Spoilt(network.cfg, network.image, bad, None, "classes", bad, rule)


bad_cfgs = bad_rows() | not_integer_values() | too_small_values() | broken_chains()
bad_ways = kernels_too_large() | other_image_channels() | bad_images()
