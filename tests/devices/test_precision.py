"""Precisions: the flags are set and come back, and what a device cannot do is refused."""

from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from perfsuite.devices.choice import device_of
from perfsuite.devices.cpu import Cpu
from perfsuite.devices.cuda import Cuda
from perfsuite.devices.precision import (
    Precision,
    PrecisionError,
    backend_flags,
    read_flags,
)

MATMUL, CONV = "cuda.matmul.fp32_precision", "cudnn.conv.fp32_precision"
PRECISIONS = pytest.mark.parametrize("precision", Precision, ids=str)


def set_flags(matmul: str, conv: str) -> None:
    torch.backends.cuda.matmul.fp32_precision = matmul
    torch.backends.cudnn.conv.fp32_precision = conv  # type: ignore[attr-defined]  # made at import


def flags() -> tuple[str | bool, str | bool]:
    found = read_flags()
    return found[MATMUL], found[CONV]


@pytest.fixture(
    params=[("none", "tf32"), ("ieee", "ieee"), ("tf32", "tf32"), ("tf32", "ieee")],
    ids=["default", "ieee", "tf32", "mixed"],
)
def before(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """Set and yield flags as a user may have left them."""
    matmul, conv = flags()
    set_flags(*request.param)
    yield request.param
    set_flags(str(matmul), str(conv))


@pytest.mark.parametrize(
    ("precision", "dtype", "scales"),
    [
        ("fp32", None, False),
        ("tf32", None, False),
        ("fp16", torch.float16, True),
        ("bf16", torch.bfloat16, False),
    ],
    ids=["fp32", "tf32", "fp16", "bf16"],
)
def test_a_precision_knows_its_dtype_and_whether_it_scales(
    precision: str, dtype: torch.dtype | None, scales: bool
) -> None:
    found = Precision(precision)
    assert found.autocast_dtype is dtype
    assert found.is_amp is (dtype is not None)
    assert found.scales_gradients is scales
    assert str(found) == precision


@PRECISIONS
def test_flags_are_set_inside_and_restored_after(
    before: tuple[str, str], precision: Precision
) -> None:
    wanted = "tf32" if precision is Precision.tf32 else "ieee"
    with backend_flags(precision):
        assert flags() == (wanted, wanted)
    assert flags() == before


def test_flags_are_restored_after_an_error(before: tuple[str, str]) -> None:
    def fail() -> None:
        with backend_flags(Precision.fp32):
            raise KeyError("in the body")

    with pytest.raises(KeyError, match="in the body"):
        fail()
    assert flags() == before


def test_flags_are_restored_level_by_level(before: tuple[str, str]) -> None:
    with backend_flags(Precision.tf32):
        with backend_flags(Precision.fp32):
            with backend_flags(Precision.tf32):
                assert flags() == ("tf32", "tf32")
            assert flags() == ("ieee", "ieee")
        assert flags() == ("tf32", "tf32")
    assert flags() == before


def test_the_same_flags_may_be_entered_again(before: tuple[str, str]) -> None:
    # As a step does, once every step; what stood there may have changed in between.
    again = backend_flags(Precision.fp32)
    for left in (before, ("ieee", "tf32")):
        set_flags(*left)
        with again:
            assert flags() == ("ieee", "ieee")
        assert flags() == left


def test_the_same_flags_may_be_entered_inside_themselves(before: tuple[str, str]) -> None:
    same = backend_flags(Precision.fp32)
    with same:
        with same:
            assert flags() == ("ieee", "ieee")
        assert flags() == ("ieee", "ieee")
    assert flags() == before


ONEDNN = [f"mkldnn.{operation}.fp32_precision" for operation in ("matmul", "conv", "rnn")]


def set_onednn(value: str) -> None:
    for operation in ("matmul", "conv", "rnn"):
        getattr(torch.backends.mkldnn, operation).fp32_precision = value


@pytest.fixture(params=["medium", "bf16", "default"])
def onednn(request: pytest.FixtureRequest) -> Iterator[list[str | bool]]:
    """Let float32 be computed in bfloat16 on a CPU that can, in each of the ways there are."""
    matmul, conv = flags()
    if request.param == "medium":
        torch.set_float32_matmul_precision("medium")
    elif request.param == "bf16":
        set_onednn("bf16")
    yield [read_flags()[name] for name in ONEDNN]
    set_onednn("none")
    torch.set_float32_matmul_precision("highest")
    set_onednn("none")
    set_flags(str(matmul), str(conv))


@PRECISIONS
def test_onednn_computes_float32_in_ieee_inside_and_as_before_after(
    onednn: list[str | bool], precision: Precision
) -> None:
    with backend_flags(precision):
        assert {read_flags()[name] for name in ONEDNN} == {"ieee"}
    assert [read_flags()[name] for name in ONEDNN] == onednn


@pytest.mark.parametrize("onednn", ["medium"], indirect=True)
def test_what_medium_means_is_undone_inside_and_kept_after(onednn: list[str | bool]) -> None:
    assert onednn[0] == "bf16"
    with backend_flags(Precision.fp32):
        assert read_flags()[ONEDNN[0]] == "ieee"
    assert torch.get_float32_matmul_precision() == "medium"
    assert read_flags()[ONEDNN[0]] == "bf16"


@pytest.mark.parametrize("on", [True, False], ids=["on", "off"])
def test_flags_that_are_read_are_torchs_own(on: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", on)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", not on)
    products = SimpleNamespace(
        allow_fp16_reduced_precision_reduction=on,
        allow_bf16_reduced_precision_reduction=not on,
        allow_fp16_accumulation=on,
    )
    monkeypatch.setattr(torch.backends.cuda, "matmul", products)
    with backend_flags(Precision.tf32):
        assert read_flags() == {
            MATMUL: "tf32",
            CONV: "tf32",
            "cudnn.rnn.fp32_precision": "tf32",
            "mkldnn.matmul.fp32_precision": "ieee",
            "mkldnn.conv.fp32_precision": "ieee",
            "mkldnn.rnn.fp32_precision": "ieee",
            "cuda.matmul.allow_fp16_reduced_precision_reduction": on,
            "cuda.matmul.allow_bf16_reduced_precision_reduction": not on,
            "cuda.matmul.allow_fp16_accumulation": on,
            "cudnn.benchmark": on,
            "cudnn.deterministic": not on,
        }


def test_a_cpu_is_timed_at_fp32_and_bf16() -> None:
    assert Cpu().precisions == (Precision.fp32, Precision.bf16)


def test_a_cpu_can_do_fp16_though_it_is_not_timed() -> None:
    Cpu().require(Precision.fp16)


def test_tf32_on_a_cpu_is_refused() -> None:
    with pytest.raises(PrecisionError, match=r"tf32 on cpu: .*use fp32"):
        Cpu().require(Precision.tf32)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], Cuda]:
    """Return a function that pretends that there is a GPU of some compute capability."""

    def pretend(major: int, minor: int) -> Cuda:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (major, minor))
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Imaginary T1000")
        return Cuda(0)

    return pretend


@pytest.mark.parametrize(
    ("major", "minor", "names"),
    [
        (5, 2, "fp32"),
        (5, 3, "fp32 fp16"),
        (7, 5, "fp32 fp16"),
        (8, 0, "fp32 tf32 fp16 bf16"),
        (8, 9, "fp32 tf32 fp16 bf16"),
        (9, 0, "fp32 tf32 fp16 bf16"),
        (12, 0, "fp32 tf32 fp16 bf16"),
    ],
    ids=["5.2", "5.3", "7.5", "8.0", "8.9", "9.0", "12.0"],
)
def test_a_gpu_can_do_what_its_compute_capability_allows(
    gpu: Callable[[int, int], Cuda], major: int, minor: int, names: str
) -> None:
    assert gpu(major, minor).precisions == tuple(Precision(name) for name in names.split())


@pytest.mark.parametrize("precision", [Precision.bf16, Precision.tf32], ids=str)
def test_an_older_gpu_is_named_with_what_it_lacks(
    gpu: Callable[[int, int], Cuda], precision: Precision
) -> None:
    with pytest.raises(PrecisionError) as caught:
        gpu(7, 5).require(precision)
    assert str(caught.value) == (
        f"{precision} on Imaginary T1000: needs compute capability 8.0, this GPU has 7.5"
    )


def product(left: Tensor, right: Tensor) -> Tensor:
    return left.view(1024, 1024) @ right.view(1024, 1024)


def convolution(images: Tensor, kernels: Tensor) -> Tensor:
    return F.conv2d(images, kernels[:, :, :3, :3].contiguous(), padding=1)


@pytest.mark.cuda
@pytest.mark.parametrize("compute", [product, convolution], ids=["product", "convolution"])
def test_fp32_is_exact_and_tf32_is_not(compute: Callable[[Tensor, Tensor], Tensor]) -> None:
    device = torch.device("cuda")
    if Precision.tf32 not in device_of(device).precisions:
        pytest.skip("this GPU has no TF32")
    seed = torch.Generator(device).manual_seed(0)
    left, right = (torch.randn(64, 64, 16, 16, device=device, generator=seed) for _ in range(2))
    exact = compute(left.double(), right.double())

    def error(precision: Precision) -> float:
        with backend_flags(precision):
            found = compute(left, right).double()
        return float((found - exact).norm() / exact.norm())

    assert error(Precision.fp32) < 1e-5
    # TF32 keeps 10 bits of the mantissa: about 3e-4 of a sum of random products.
    assert error(Precision.tf32) > 5e-5
