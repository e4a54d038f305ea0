"""Without a GPU, a forward pass casts as CUDA's documented lists say."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from sabotage import environments as env
from torch import Tensor, nn
from torch.nn import functional as F

from perfsuite.devices import pretended
from perfsuite.devices.precision import Precision
from perfsuite.probes.on_cuda import cuda_dtypes

pytestmark = pytest.mark.skipif(torch.version.cuda is None, reason="torch is a CPU build")
HALF = pytest.mark.parametrize("precision", [Precision.fp16, Precision.bf16], ids=str)
SQUARE = (4, 4)
IMAGES, KERNELS = (2, 3, 8, 8), (4, 3, 3, 3)

# By the lists of torch's page on autocast for CUDA: what is computed in half precision ...
TO_HALF: dict[str, tuple[Callable[..., Tensor], tuple[tuple[int, ...], ...]]] = {
    "matmul": (torch.matmul, (SQUARE, SQUARE)),
    "mm": (torch.mm, (SQUARE, SQUARE)),
    "mv": (torch.mv, (SQUARE, (4,))),
    "bmm": (torch.bmm, ((2, *SQUARE), (2, *SQUARE))),
    "baddbmm": (torch.baddbmm, ((2, *SQUARE),) * 3),
    "addmm": (torch.addmm, (SQUARE,) * 3),
    "addmv": (torch.addmv, ((4,), SQUARE, (4,))),
    "addr": (torch.addr, (SQUARE, (4,), (4,))),
    "einsum": (lambda a, b: torch.einsum("ij,jk->ik", a, b), (SQUARE, SQUARE)),
    "linear": (F.linear, (SQUARE, SQUARE)),
    "conv1d": (F.conv1d, ((2, 3, 8), (4, 3, 3))),
    "conv2d": (F.conv2d, (IMAGES, KERNELS)),
    "conv3d": (F.conv3d, ((2, 3, 8, 8, 8), (4, 3, 3, 3, 3))),
    "conv_transpose2d": (F.conv_transpose2d, (IMAGES, (3, 4, 3, 3))),
    "prelu": (F.prelu, (IMAGES, (3,))),
    "attention": (F.scaled_dot_product_attention, ((1, 2, 5, 8),) * 3),
}
# ... in float32, whatever is given ...
TO_FLOAT: dict[str, tuple[Callable[..., Tensor], tuple[tuple[int, ...], ...]]] = {
    "softmax": (lambda x: F.softmax(x, -1), (SQUARE,)),
    "log_softmax": (lambda x: F.log_softmax(x, -1), (SQUARE,)),
    "layer_norm": (lambda x: F.layer_norm(x, (4,)), (SQUARE,)),
    "group_norm": (lambda x: F.group_norm(x, 3), (IMAGES,)),
    "mse_loss": (F.mse_loss, (SQUARE, SQUARE)),
    "l1_loss": (F.l1_loss, (SQUARE, SQUARE)),
    "bce_with_logits": (F.binary_cross_entropy_with_logits, (SQUARE, SQUARE)),
    "exp": (torch.exp, (SQUARE,)),
    "log": (torch.log, (SQUARE,)),
    "pow": (lambda x: torch.pow(x, 2), (SQUARE,)),
    "sum": (torch.sum, (SQUARE,)),
    "prod": (torch.prod, (SQUARE,)),
    "cumsum": (lambda x: torch.cumsum(x, 0), (SQUARE,)),
    "norm": (torch.norm, (SQUARE,)),
    "rsqrt": (torch.rsqrt, (SQUARE,)),
    "softplus": (F.softplus, (SQUARE,)),
    "cosine_similarity": (F.cosine_similarity, (SQUARE, SQUARE)),
}
# ... and in the widest dtype among its inputs.
TO_WIDEST: dict[str, tuple[Callable[..., Tensor], tuple[tuple[int, ...], ...]]] = {
    "addcmul": (torch.addcmul, (SQUARE,) * 3),
    "addcdiv": (torch.addcdiv, (SQUARE,) * 3),
    "atan2": (torch.atan2, (SQUARE, SQUARE)),
    "dot": (torch.dot, ((4,), (4,))),
    "cat": (lambda a, b: torch.cat([a, b]), (SQUARE, SQUARE)),
    "stack": (lambda a, b: torch.stack([a, b]), (SQUARE, SQUARE)),
}


class CallsOfModel(nn.Module):
    """A model that is one function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *given: Tensor) -> Any:
        return self.function(*given)


def returned(
    function: Callable[..., Any], precision: Precision, given: list[Tensor]
) -> tuple[str, ...]:
    found = cuda_dtypes(CallsOfModel(function), *given, precision=precision)
    assert found.unknown == ""
    return found.outputs


def name_of(precision: Precision) -> str:
    return str(precision.autocast_dtype).removeprefix("torch.")


@HALF
@pytest.mark.parametrize("operator", TO_HALF)
def test_products_and_convolutions_are_in_half(operator: str, precision: Precision) -> None:
    function, shapes = TO_HALF[operator]
    given = [torch.ones(shape) for shape in shapes]
    assert returned(function, precision, given) == (name_of(precision),)
    assert returned(function, Precision.fp32, given) == ("float32",)


@HALF
@pytest.mark.parametrize("operator", TO_FLOAT)
def test_what_needs_its_digits_is_in_float32(operator: str, precision: Precision) -> None:
    function, shapes = TO_FLOAT[operator]
    given = [torch.ones(shape, dtype=precision.autocast_dtype) for shape in shapes]
    assert returned(function, precision, given) == ("float32",)


@HALF
@pytest.mark.parametrize("operator", TO_WIDEST)
def test_what_mixes_dtypes_is_in_the_widest(operator: str, precision: Precision) -> None:
    function, shapes = TO_WIDEST[operator]
    half = [torch.ones(shape, dtype=precision.autocast_dtype) for shape in shapes]
    assert returned(function, precision, half) == (name_of(precision),)
    assert returned(function, precision, [half[0].float(), *half[1:]]) == ("float32",)


@HALF
def test_a_convolutional_network_computes_its_layers_in_half(precision: Precision) -> None:
    model = env.two_convolutions()
    found = cuda_dtypes(model, torch.ones(2, 1, 28, 28), precision=precision)
    half = name_of(precision)
    assert found.operators["convolution", half] == 2
    assert found.operators["addmm", half] == 3
    assert ("convolution", "float32") not in found.operators
    assert {found.layers[name] for name in ("0", "3")} == {half}
    assert all(parameter.device.type == "cpu" for parameter in model.parameters())
    assert "2 convolution" in str(found)


@HALF
def test_a_transformer_computes_its_products_in_half(precision: Precision) -> None:
    found = cuda_dtypes(env.Transformer(), torch.ones(2, 1, 28, 28), precision=precision)
    half = name_of(precision)
    assert found.outputs == (half,)
    assert found.operators["native_layer_norm", "float32"] == 3
    assert found.operators["addmm", half] >= 5
    assert [name for name, dtype in found.operators if name == "addmm" and dtype != half] == []


def test_a_layer_outside_of_autocast_is_told() -> None:
    class Casts(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            with torch.autocast("cuda", enabled=False):
                return super().forward(x.float())

    model = nn.Sequential(nn.Linear(4, 4), Casts(4, 4))
    found = cuda_dtypes(model, torch.ones(2, 4), precision=Precision.fp16)
    assert found.layers == {"0": "float16", "1": "float32"}


def test_what_cuda_refuses_is_refused() -> None:
    one = torch.ones(4)
    found = cuda_dtypes(CallsOfModel(F.binary_cross_entropy), one, one, precision=Precision.fp16)
    assert "unsafe to autocast" in found.unknown
    assert str(found).startswith("unknown: the forward pass raises RuntimeError: ")


def test_a_model_that_reads_a_value_is_unknown_in_a_line() -> None:
    found = cuda_dtypes(CallsOfModel(lambda x: x * float(x.sum())), torch.ones(4), precision="fp16")  # type: ignore[arg-type]  # as a user may
    assert found.unknown
    assert "\n" not in str(found)


def test_a_cpu_build_says_so_and_nothing_stays_pretended(monkeypatch: pytest.MonkeyPatch) -> None:
    before = [getattr(where, name) for where, name, _ in pretended._ASKED]
    cuda_dtypes(CallsOfModel(torch.exp), torch.ones(4), precision=Precision.fp16)
    assert [getattr(where, name) for where, name, _ in pretended._ASKED] == before
    monkeypatch.setattr(torch.version, "cuda", None)
    found = cuda_dtypes(CallsOfModel(torch.exp), torch.ones(4), precision=Precision.fp16)
    assert str(found) == "unknown: this torch was built without CUDA"
