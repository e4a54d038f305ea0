"""How exact a product was: some of its numbers, against the same in float64."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

_ROWS = 16  # and columns of a product; how many output channels and pixels of a convolution
_CHANNELS, _PIXELS = 4, 8


class Exactness(NamedTuple):
    """How far some numbers of a product are from float64's, as norms.

    Attributes:
        error: of the numbers.
        terms: root of the sum of the squared terms of each: what rounding them is relative to.
        exact: the numbers themselves: what rounding the result is relative to.
        least: the smallest number of the dtype, as often: what is below it is lost.
    """

    error: float
    terms: float
    exact: float
    least: float


def exactness(
    name: str, arguments: Sequence[Any], named: Mapping[str, Any], result: Any
) -> Exactness | None:
    """Return how exact an operator's result is; None for others than products and convolutions.

    A few numbers are computed again, whatever the operator's size. A result that is not finite, as
    where a scale is too large, says nothing; nor does one of whole or complex numbers, or one that
    its operator multiplies by a factor, `alpha` or `beta`.
    """
    if not (isinstance(result, Tensor) and result.is_floating_point()):
        return None
    if any(named.get(factor, 1) != 1 for factor in ("alpha", "beta")):
        return None
    if name in ("mm", "bmm"):
        found, terms, exact = _of_product(arguments[0], arguments[1], result)
    elif name in ("addmm", "baddbmm") and arguments[0].dim() <= 1:  # a bias, added to each row
        found, terms, exact = _of_product(arguments[1], arguments[2], result)
        exact += _some(arguments[0], 0).double() if arguments[0].dim() else arguments[0].double()
    elif name == "convolution" and not arguments[6]:
        found, terms, exact = _of_convolution(arguments, result)
    else:
        return None
    if not bool(found.isfinite().all()) or not exact.numel():
        return None
    return Exactness(
        error=float((found - exact).norm()),
        terms=float(terms.sqrt().norm()),
        exact=float(exact.norm()),
        least=torch.finfo(result.dtype).smallest_normal
        * torch.finfo(result.dtype).eps
        * exact.numel() ** 0.5,
    )


def _some(tensor: Tensor, dim: int) -> Tensor:
    """Return _ROWS of a tensor's rows or columns, evenly spaced."""
    size = tensor.shape[dim]
    at = torch.arange(min(size, _ROWS), device=tensor.device) * max(1, size // _ROWS)
    return tensor.index_select(dim, at)


def _of_product(a: Tensor, b: Tensor, result: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    if a.dim() == 3:
        a, b, result = a[0], b[0], result[0]
    a, b = _some(a, 0).double(), _some(b, 1).double()
    return _some(_some(result, 0), 1).double(), a.square() @ b.square(), a @ b


def _of_convolution(arguments: Sequence[Any], result: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of the first image and group; the pixels in the middle, some of which may be padding."""
    images, weight, bias, stride, padding, dilation, _, no_padding, groups = arguments
    channels = min(_CHANNELS, weight.shape[0] // groups)
    images, weight = images[:1, : weight.shape[1]], weight[:channels].double()
    found, pads = result[:1, :channels], list[int]()
    for dim, size in enumerate(result.shape[2:], start=2):
        axis, pixels = dim - 2, min(size, _PIXELS)
        first = (size - pixels) // 2
        found = found.narrow(dim, first, pixels)
        low = first * stride[axis] - padding[axis]
        high = low + (pixels - 1) * stride[axis] + dilation[axis] * (weight.shape[dim] - 1) + 1
        pads = [max(-low, 0), max(high - images.shape[dim], 0), *pads]
        start, end = max(low, 0), min(high, images.shape[dim])
        images = images.narrow(dim, start, max(end - start, 0))
    images = nn.functional.pad(images.double(), pads)
    how = (stride, [0] * len(stride), dilation, False, no_padding, 1)
    exact = torch.convolution(
        images, weight, None if bias is None else bias[:channels].double(), *how
    )
    terms = torch.convolution(images.square(), weight.square(), None, *how)
    return found.double(), terms, exact
