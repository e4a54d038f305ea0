"""A few numbers of a product tell what computed it, whatever its shape."""

from typing import Any

import pytest
import torch
from torch import Tensor

from perfsuite.probes.exactness import Exactness, exactness

DRAWN = torch.Generator().manual_seed(0)
CONVOLUTIONS: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "padded": ((2, 8, 5, 5), (6, 8, 3, 3), {"padding": [1, 1]}),
    "strided": ((2, 8, 32, 32), (6, 8, 3, 3), {"stride": [2, 2], "padding": [1, 1]}),
    "dilated": ((2, 8, 32, 32), (6, 8, 3, 3), {"dilation": [3, 3], "padding": [4, 4]}),
    "groups": ((2, 8, 32, 32), (8, 2, 3, 3), {"groups": 4}),
    "one-dimension": ((2, 8, 64), (6, 8, 5), {"padding": [7]}),
    "three-dimensions": ((1, 4, 12, 12, 12), (6, 4, 3, 3, 3), {"padding": [1, 1, 1]}),
}


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=DRAWN)


def rounded(tensor: Tensor, digits: int) -> Tensor:
    """Return float32 with so many bits of its mantissa less, as TF32 has 13 less."""
    bits = tensor.view(torch.int32)
    return ((bits + (1 << (digits - 1))) >> digits << digits).view(torch.float32)


def share(found: Exactness | None) -> float:
    assert found is not None
    return found.error / found.terms


@pytest.mark.parametrize(("digits", "most"), [(0, 1e-6), (13, 5e-4), (16, 4e-3)])
@pytest.mark.parametrize("name", ["mm", "addmm", "bmm", "baddbmm"])
def test_the_error_of_a_product_is_that_of_its_operands(
    name: str, digits: int, most: float
) -> None:
    a, b = drawn(40, 300), drawn(300, 50)
    lossy = (rounded(a, digits), rounded(b, digits)) if digits else (a, b)
    result = lossy[0] @ lossy[1]
    given: tuple[Tensor, ...] = (a, b)
    if "b" in name[:3]:
        given, result = (a[None], b[None]), result[None]
    if name.startswith(("addmm", "baddbmm")):
        bias = drawn(50)
        given, result = (bias, *given), result + bias
    found = share(exactness(name, given, {}, result))
    assert most / 10 < found < most if digits else found < most


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_the_error_of_a_convolution_is_that_of_its_operands(kind: str) -> None:
    images, kernels, changes = CONVOLUTIONS[kind]
    dims = len(images) - 2
    how = {"stride": [1] * dims, "padding": [0] * dims, "dilation": [1] * dims, "groups": 1}
    how |= changes
    x, w, bias = drawn(*images), drawn(*kernels), drawn(kernels[0])

    def computed(x: Tensor, w: Tensor) -> tuple[tuple[Any, ...], Tensor]:
        rest = (how["stride"], how["padding"], how["dilation"], False, [0] * dims, how["groups"])
        return (x, w, bias, *rest), torch.convolution(x, w, bias, *rest)  # type: ignore[arg-type]  # lists, as torch takes

    given, result = computed(x, w)
    assert share(exactness("convolution", given, {}, result)) < 1e-6
    _, lossy = computed(rounded(x, 13), rounded(w, 13))
    assert 1e-4 < share(exactness("convolution", given, {}, lossy)) < 1e-3


def test_what_says_nothing_is_left_out() -> None:
    a = drawn(4, 4)
    assert exactness("mul", (a, a), {}, a * a) is None
    assert exactness("mm", (a, a), {}, torch.full((4, 4), torch.inf)) is None
    assert exactness("addmm", (a, a, a), {}, a + a @ a) is None  # no bias
    assert exactness("mm", (a[:0], a), {}, a[:0]) is None
    for dtype in (torch.int64, torch.complex64):
        b = a.to(dtype)
        assert exactness("mm", (b, b), {}, b @ b) is None
    for factor in ("alpha", "beta"):
        halved = {factor: 0.5}
        assert exactness("addmm", (a[0], a, a), halved, torch.addmm(a[0], a, a, **halved)) is None  # type: ignore[call-overload]  # by either name


def test_terms_that_all_but_cancel_are_no_error() -> None:
    a = drawn(64, 512)
    b = torch.ones(512, 4)
    a -= a.mean(dim=1, keepdim=True)
    assert share(exactness("mm", (a, b), {}, a @ b)) < 1e-6
