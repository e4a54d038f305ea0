"""Charges the operators that the CPU computes to a simulated device, as kernels of a card."""

import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from perfsuite.devices.cards import Card
from perfsuite.devices.precision import read_flags

_HALF = {torch.float16: "fp16", torch.bfloat16: "bf16"}
# They launch nothing: they make memory, or tell the profiler something.
_NO_KERNELS = ("aten::empty", "aten::new_empty", "profiler::")
_READ = torch.ops.aten._local_scalar_dense.default


class Charging(TorchDispatchMode):
    """Launches, while entered, a kernel for each operator, and counts the memory of its results.

    A kernel takes what its arithmetic or its bytes take at the card's rates, whichever is longer.
    Products of half precision are computed in float32 and rounded, as tensor cores do.
    """

    def __init__(
        self,
        card: Card,
        *,
        launch: Callable[[float, str], None],
        read: Callable[[], None],
        allocate: Callable[[int], None],
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's
        self._card = card
        self._launch, self._read, self._allocate = launch, read, allocate
        self._alive: dict[int, weakref.ref[torch.UntypedStorage]] = {}  # that are counted

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Compute, then charge it."""
        del types  # part of torch's signature
        kwargs = kwargs or {}
        if func is _READ:
            self._read()
            return func(*args, **kwargs)
        about = _about(func)
        if about.is_view:
            return func(*args, **kwargs)
        given = list(_tensors((*args, *kwargs.values())))
        half = None
        if about.flops is not None:
            half = next((t.dtype for t in given if t.dtype in _HALF), None)
        out = func(*args, **kwargs) if half is None else _in_float32(func, half, args, kwargs)
        made = list(_tensors((out,)))
        for tensor in made:
            self._count(tensor)
        if about.launches:
            flops = 0 if about.flops is None else about.flops(*args, **kwargs, out_val=out)
            self._launch(self._kernel_s(about.name, flops, given, made, half), about.name)
        return out

    def _kernel_s(
        self,
        name: str,
        flops: float,
        given: list[Tensor],
        made: list[Tensor],
        half: torch.dtype | None,
    ) -> float:
        card = self._card
        moved = sum(t.numel() * t.element_size() for t in (*given, *made)) * card.bytes_scale
        seconds = moved / card.bytes_per_s
        if flops:
            precision = _HALF[half] if half is not None else _float32(name)
            seconds = max(seconds, flops * card.flop_scale / card.flop_per_s[precision])
        return seconds + card.least_kernel_s

    def _count(self, tensor: Tensor) -> None:
        """Take memory for a storage that is new, until nothing uses it any more."""
        storage = tensor.untyped_storage()
        number, size = storage._cdata, storage.nbytes() * self._card.bytes_scale
        if number in self._alive or not size:
            return
        self._allocate(size)

        def free(_: Any) -> None:
            del self._alive[number]
            self._allocate(-size)

        self._alive[number] = weakref.ref(storage, free)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Charge:
    name: str
    is_view: bool
    launches: bool
    flops: Callable[..., int] | None  # of a product, from arguments and result


@cache
def _about(func: Any) -> _Charge:
    name = func._schema.name
    return _Charge(
        name=name,
        is_view=func.is_view,
        launches=not name.startswith(_NO_KERNELS),
        flops=flop_registry.get(func.overloadpacket),
    )


def _in_float32(func: Any, half: torch.dtype, args: Any, kwargs: Any) -> Any:
    """Compute a product of half precision as tensor cores do; none is given lists of tensors."""
    wide = [a.float() if isinstance(a, Tensor) else a for a in args]
    named = {k: a.float() if isinstance(a, Tensor) else a for k, a in kwargs.items()}
    out = func(*wide, **named)
    if isinstance(out, Tensor):
        return out.to(half)
    return tuple(each.to(half) if isinstance(each, Tensor) else each for each in out)


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for each in values:
        if isinstance(each, Tensor):
            yield each
        elif isinstance(each, tuple | list):
            yield from _tensors(each)


def _float32(name: str) -> str:
    flags = read_flags()
    backend = "cudnn.conv" if "conv" in name else "cuda.matmul"
    return "tf32" if flags[f"{backend}.fp32_precision"] == "tf32" else "fp32"
