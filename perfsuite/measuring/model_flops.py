"""The FLOPs of a step's model: those of its products, and of none that is computed anew.

The formulas are torch's, but for what it counts otherwise: the gradient of a grouped convolution's
weights as if there were one group, and the scores that an attention computes anew in its backward.
"""

import re
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.utils.checkpoint
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import conv_flop_count, flop_registry, sdpa_flop_count

from perfsuite.measuring.sites import in_backward

if TYPE_CHECKING:
    from types import FrameType

_aten = torch.ops.aten
# By their names: recurrent networks of cuDNN, MIOpen, oneDNN and Metal, and what others add.
_PRODUCT = re.compile(r"rnn|_lstm_mps|attention|attn|convolution|matmul|mm$")


def flops_of(func: Any, args: Any, kwargs: Any, result: Any) -> int | None:
    """Return the FLOPs of an operator: 0 if it is no product, None if nobody knows them."""
    if (formula := _formula(func)) is not None:
        return int(formula(*args, **kwargs, out_val=result))
    return None if _PRODUCT.search(name_of(func)) else 0


def name_of(func: Any) -> str:
    """Return the name of an operator, without its library and its overload."""
    name: str = func.name()
    return name.partition("::")[2].partition(".")[0]


def _formula(func: Any) -> Callable[..., Any] | None:
    return _OWN.get(func.overloadpacket) or flop_registry.get(func.overloadpacket)


class ModelFlops(TorchDispatchMode):
    """Counts, while entered, the FLOPs of a model.

    Forward passes that activation checkpoints repeat in backward are no progress, and left out.

    Attributes:
        flops: of all products of which they are known.
        unknown: the names of other ones.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch gives it no types
        self.flops = 0
        self.unknown: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Compute, and count it unless it is computed anew."""
        del types  # part of torch's signature
        kwargs = kwargs or {}
        if func.namespace == "aten" and not _formula(func):
            with self:  # what is made of products comes whole in inference mode
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        result = func(*args, **kwargs)
        # The gradients of a checkpoint's own backward pass are made without recording any.
        if not (in_backward() and torch.is_grad_enabled() and _checkpointed()):
            if (flops := flops_of(func, args, kwargs, result)) is None:
                self.unknown.add(name_of(func))
            else:
                self.flops += flops
        return result


def _checkpointed() -> bool:
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and frame.f_code.co_filename != torch.utils.checkpoint.__file__:
        frame = frame.f_back
    return frame is not None


def _convolution_backward(gradient: Any, images: Any, weights: Any, *about: Any, **_: Any) -> int:
    transposed, wanted = about[4], about[7]
    # Each gradient takes as many products as the convolution did, in as many groups.
    once = conv_flop_count(images.shape, weights.shape, gradient.shape, transposed)
    return int(once * sum(wanted[:2]))


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query.shape, key.shape, value.shape))


# Each of attention's two products has two gradients.
def _attention_backward(_: Any, query: Any, key: Any, value: Any, *__: Any, **___: Any) -> int:
    return 2 * _attention(query, key, value)


def _flash_backward(_: Any, *about: Any, **__: Any) -> int:
    (query, key, value, _, _), lengths = about[:5], about[5:9]
    return 2 * int(flop_registry[_aten._flash_attention_forward](query, key, value, *lengths))


def _efficient_backward(_: Any, *about: Any, **__: Any) -> int:
    (query, key, value, bias, _), lengths = about[:5], about[5:9]
    forward = flop_registry[_aten._efficient_attention_forward]
    return 2 * int(forward(query, key, value, bias, *lengths))


_OWN: dict[Any, Callable[..., int]] = {
    _aten.convolution_backward: _convolution_backward,
    _aten._scaled_dot_product_flash_attention_for_cpu: _attention,  # older torch has none for it
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    _aten._scaled_dot_product_flash_attention_backward: _attention_backward,
    _aten._scaled_dot_product_efficient_attention_backward: _attention_backward,
    _aten._scaled_dot_product_cudnn_attention_backward: _attention_backward,
    # Of sequences of unlike lengths, packed into one tensor.
    _aten._flash_attention_backward: _flash_backward,
    _aten._efficient_attention_backward: _efficient_backward,
}
