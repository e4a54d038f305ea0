"""The cfg of a convolutional network, and everything that can be computed from it without torch.

A cfg is a sequence of rows ``[in_channels, out_channels, kernel_size, stride, padding]``,
one row a block of Conv2d (no bias), BatchNorm2d and ReLU. After the blocks comes the head:
global average pooling and three linear layers, last channels → 1000 → 1000 → classes.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import TypeGuard

Row = tuple[int, int, int, int, int]
Cfg = Sequence[Sequence[int]]
Image = tuple[int, int, int]
"""Channels, height and width of one image."""

FIELDS = ("in_channels", "out_channels", "kernel_size", "stride", "padding")
HEAD_WIDTH = 1000
IMAGE: Image = (1, 28, 28)

TUTORIAL_CFG: tuple[Row, ...] = (
    (1, 32, 3, 1, 1),
    (32, 64, 3, 1, 1),
    (64, 64, 2, 2, 0),
    (64, 128, 3, 1, 1),
    (128, 128, 3, 1, 1),
    (128, 128, 3, 1, 1),
    (128, 128, 2, 2, 0),
    (128, 256, 3, 1, 1),
    (256, 256, 2, 1, 0),
    (256, 512, 3, 1, 1),
    (512, 512, 3, 1, 1),
    (512, 512, 3, 1, 1),
    (512, 512, 2, 2, 0),
    (512, 1024, 3, 1, 1),
)


class CfgError(ValueError):
    """A cfg that describes no network.

    Attributes:
        row: index of the offending row, or None where the cfg as a whole is wrong.
        field: name of the offending field, or None where the row as a whole is wrong.
        value: what stood there.
        rule: what has to hold.
    """

    def __init__(self, *, row: int | None, field: str | None, value: object, rule: str) -> None:
        self.row, self.field, self.value, self.rule = row, field, value, rule
        where = "cfg" if row is None else f"cfg row {row}"
        what = f"{field} = {value!r}" if field is not None else f"{value!r}"
        super().__init__(f"{where}: {what}: {rule}")

    def __reduce__(self) -> tuple[Callable[[], "CfgError"], tuple[()]]:
        """Let a worker process hand it on: exceptions are pickled by position otherwise."""
        return partial(
            CfgError, row=self.row, field=self.field, value=self.value, rule=self.rule
        ), ()


def check_cfg(cfg: Cfg) -> tuple[Row, ...]:
    """Return the rows of a valid cfg as tuples.

    Raises:
        CfgError: the cfg is empty, a row does not have five integers, a value is out of its
            range, or a row's in_channels are not the out_channels of the row before.
    """
    if not _is_sequence(cfg):
        raise CfgError(row=None, field=None, value=cfg, rule="must be a sequence of rows")
    if len(cfg) == 0:
        raise CfgError(row=None, field=None, value=cfg, rule="must have at least one row")
    rows = tuple(_check_row(index, row) for index, row in enumerate(cfg))
    for index in range(1, len(rows)):
        before, here = rows[index - 1][1], rows[index][0]
        if here != before:
            raise CfgError(
                row=index,
                field="in_channels",
                value=here,
                rule=f"must equal out_channels of row {index - 1}, {before}",
            )
    return rows


def _is_sequence(value: object) -> TypeGuard[Sequence[object]]:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _is_int(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_row(index: int, row: object) -> Row:
    if not _is_sequence(row) or len(row) != len(FIELDS):
        rule = f"must be five integers [{', '.join(FIELDS)}]"
        raise CfgError(row=index, field=None, value=row, rule=rule)
    checked = []
    for field, value in zip(FIELDS, row, strict=True):
        if not _is_int(value):
            raise CfgError(row=index, field=field, value=value, rule="must be an integer")
        least = 0 if field == "padding" else 1
        if value < least:
            raise CfgError(row=index, field=field, value=value, rule=f"must be at least {least}")
        checked.append(value)
    in_channels, out_channels, kernel_size, stride, padding = checked
    return in_channels, out_channels, kernel_size, stride, padding


def check_classes(classes: int) -> int:
    """Return the number of classes if it is a positive integer.

    Raises:
        CfgError: it is not.
    """
    if not _is_int(classes) or classes < 1:
        rule = "must be a positive integer"
        raise CfgError(row=None, field="classes", value=classes, rule=rule)
    return classes


def output_shapes(cfg: Cfg, image: Image = IMAGE) -> tuple[Image, ...]:
    """Return (channels, height, width) after each row, for one image.

    Raises:
        CfgError: the cfg is invalid, the image has other channels than row 0 takes, or the
            image shrinks to nothing on the way.
    """
    rows = check_cfg(cfg)
    if not _is_sequence(image) or len(image) != 3 or not all(_is_int(n) and n > 0 for n in image):
        rule = "must be three positive integers (channels, height, width)"
        raise CfgError(row=None, field="image", value=image, rule=rule)
    channels, height, width = image
    if rows[0][0] != channels:
        rule = f"must equal the image's channels, {channels}"
        raise CfgError(row=0, field="in_channels", value=rows[0][0], rule=rule)
    shapes: list[Image] = []
    for index, (_, out_channels, kernel_size, stride, padding) in enumerate(rows):
        for side in (height, width):
            if side + 2 * padding < kernel_size:
                rule = f"must fit in the padded {height}x{width} image: it shrinks to nothing"
                raise CfgError(row=index, field="kernel_size", value=kernel_size, rule=rule)
        height = (height + 2 * padding - kernel_size) // stride + 1
        width = (width + 2 * padding - kernel_size) // stride + 1
        shapes.append((out_channels, height, width))
    return tuple(shapes)


def parameters(cfg: Cfg, classes: int = 10) -> int:
    """Return the number of trainable parameters of the whole model, head included."""
    rows = check_cfg(cfg)
    blocks = sum(i * o * k * k + 2 * o for i, o, k, _, _ in rows)
    head = _head_widths(rows, classes)
    return blocks + sum((inputs + 1) * outputs for inputs, outputs in head)


def conv_flops(cfg: Cfg, image: Image = IMAGE) -> int:
    """Return the FLOPs of the convolutions in one image's forward pass (2 a multiply-add)."""
    rows, shapes = check_cfg(cfg), output_shapes(cfg, image)
    return sum(
        2 * i * o * k * k * height * width
        for (i, o, k, _, _), (_, height, width) in zip(rows, shapes, strict=True)
    )


def head_flops(cfg: Cfg, classes: int = 10) -> int:
    """Return the FLOPs of the three linear layers in one image's forward pass."""
    return sum(2 * inputs * outputs for inputs, outputs in _head_widths(check_cfg(cfg), classes))


def scale_width(cfg: Cfg, divisor: int) -> tuple[Row, ...]:
    """Return the cfg with every hidden width divided, the image's own channels kept.

    Raises:
        CfgError: the cfg is invalid, the divisor is no positive integer, or a width is not a
            multiple of it.
    """
    rows = check_cfg(cfg)
    if not _is_int(divisor) or divisor < 1:
        rule = "must be a positive integer"
        raise CfgError(row=None, field="divisor", value=divisor, rule=rule)
    for index, row in enumerate(rows):
        if row[1] % divisor:
            rule = f"must be a multiple of {divisor} to be divided by it"
            raise CfgError(row=index, field="out_channels", value=row[1], rule=rule)
    return tuple(
        (i if index == 0 else i // divisor, o // divisor, k, s, p)
        for index, (i, o, k, s, p) in enumerate(rows)
    )


def _head_widths(rows: tuple[Row, ...], classes: int) -> tuple[tuple[int, int], ...]:
    widths = (rows[-1][1], HEAD_WIDTH, HEAD_WIDTH, check_classes(classes))
    return tuple(pairwise(widths))
