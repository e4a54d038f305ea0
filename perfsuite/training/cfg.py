"""The cfg of a convolutional network, and what can be computed from it without torch.

A cfg is a sequence of rows ``[in_channels, out_channels, kernel_size, stride, padding]``,
one row a block of Conv2d (no bias), BatchNorm2d and ReLU. After the blocks comes the head:
global average pooling and three linear layers, last channels → 1000 → 1000 → classes.
Every function raises CfgError for a cfg, or for another argument, that describes no network.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import TypeGuard

CfgRow = tuple[int, int, int, int, int]
Cfg = Sequence[Sequence[int]]
Image = tuple[int, int, int]  # channels, height, width

FIELDS = ("in_channels", "out_channels", "kernel_size", "stride", "padding")
HEAD_WIDTH = 1000
IMAGE: Image = (1, 28, 28)

TUTORIAL_CFG: tuple[CfgRow, ...] = (
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
"""The tutorial's network: a row a convolution, of the fields in `FIELDS`."""


class CfgError(ValueError):
    """A cfg that describes no network; row and field are None where it is wrong as a whole."""

    def __init__(
        self, *, value: object, rule: str, row: int | None = None, field: str | None = None
    ) -> None:
        self.row, self.field, self.value, self.rule = row, field, value, rule
        where = "cfg" if row is None else f"cfg row {row}"
        what = f"{field} = {value!r}" if field is not None else f"{value!r}"
        super().__init__(f"{where}: {what}: {rule}")

    def __reduce__(self) -> tuple[Callable[[], "CfgError"], tuple[()]]:
        """Let a worker process hand it on: exceptions are pickled by position otherwise."""
        return partial(
            CfgError, row=self.row, field=self.field, value=self.value, rule=self.rule
        ), ()


def check_cfg(cfg: Cfg) -> tuple[CfgRow, ...]:
    """Return the rows as tuples; values are in range, and channels fit from row to row."""
    if not _is_sequence(cfg):
        raise CfgError(value=cfg, rule="must be a sequence of rows")
    if len(cfg) == 0:
        raise CfgError(value=cfg, rule="must have at least one row")
    rows = tuple(_check_row(index, row) for index, row in enumerate(cfg))
    for index, ((_, before, *_), (here, *_)) in enumerate(pairwise(rows), start=1):
        if here != before:
            rule = f"must equal out_channels of row {index - 1}, {before}"
            raise CfgError(row=index, field="in_channels", value=here, rule=rule)
    return rows


def check_positive(field: str, value: object) -> int:
    """Return a value that belongs to a cfg, such as its classes, if it is a positive integer."""
    if not _is_int(value) or value < 1:
        raise CfgError(field=field, value=value, rule="must be a positive integer")
    return value


def output_shapes(cfg: Cfg, image: Image = IMAGE) -> tuple[Image, ...]:
    """Return what one image has become after each row; it must not shrink to nothing."""
    rows = check_cfg(cfg)
    if not _is_sequence(image) or len(image) != 3 or not all(_is_int(n) and n > 0 for n in image):
        rule = "must be three positive integers (channels, height, width)"
        raise CfgError(field="image", value=image, rule=rule)
    channels, height, width = image
    if rows[0][0] != channels:
        rule = f"must equal the image's channels, {channels}"
        raise CfgError(row=0, field="in_channels", value=rows[0][0], rule=rule)
    shapes: list[Image] = []
    for index, (_, out_channels, kernel_size, stride, padding) in enumerate(rows):
        if min(height, width) + 2 * padding < kernel_size:
            rule = f"must fit in the padded {height}x{width} image: it shrinks to nothing"
            raise CfgError(row=index, field="kernel_size", value=kernel_size, rule=rule)
        height, width = ((n + 2 * padding - kernel_size) // stride + 1 for n in (height, width))
        shapes.append((out_channels, height, width))
    return tuple(shapes)


def parameters(cfg: Cfg, classes: int = 10) -> int:
    """Return the number of trainable parameters, head included."""
    rows = check_cfg(cfg)
    head = _head_widths(rows, classes)
    return sum(i * o * k * k + 2 * o for i, o, k, _, _ in rows) + sum((i + 1) * o for i, o in head)


def forward_flops(cfg: Cfg, image: Image = IMAGE, classes: int = 10) -> int:
    """Return the FLOPs of one image's forward pass: 2 a multiply-add of a Conv2d or Linear."""
    rows, shapes = check_cfg(cfg), output_shapes(cfg, image)
    blocks = sum(
        2 * i * o * k * k * height * width
        for (i, o, k, _, _), (_, height, width) in zip(rows, shapes, strict=True)
    )
    return blocks + sum(2 * i * o for i, o in _head_widths(rows, classes))


def scale_width(cfg: Cfg, divisor: int) -> tuple[CfgRow, ...]:
    """Return the cfg with every hidden width divided without rest; the image keeps its channels."""
    rows = check_cfg(cfg)
    check_positive("divisor", divisor)
    for index, row in enumerate(rows):
        if row[1] % divisor:
            rule = f"must be a multiple of {divisor} to be divided by it"
            raise CfgError(row=index, field="out_channels", value=row[1], rule=rule)
    return tuple(
        (i if index == 0 else i // divisor, o // divisor, k, s, p)
        for index, (i, o, k, s, p) in enumerate(rows)
    )


def _head_widths(rows: tuple[CfgRow, ...], classes: int) -> tuple[tuple[int, int], ...]:
    widths = (rows[-1][1], HEAD_WIDTH, HEAD_WIDTH, check_positive("classes", classes))
    return tuple(pairwise(widths))


def _is_sequence(value: object) -> TypeGuard[Sequence[object]]:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _is_int(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_row(index: int, row: object) -> CfgRow:
    if not _is_sequence(row) or len(row) != len(FIELDS):
        rule = f"must be five integers [{', '.join(FIELDS)}]"
        raise CfgError(row=index, value=row, rule=rule)
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
