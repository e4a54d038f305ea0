"""Charges the operators that the CPU computes to a simulated device, as kernels of a card."""

import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
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
        launch: Callable[[str, float], None],
        read: Callable[[], None],
        allocate: Callable[[int], None],
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's
        self._card = card
        self._launch, self._read, self._allocate = launch, read, allocate
        self._alive: set[int] = set()  # storages that are counted

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Compute, then charge it."""
        del types  # part of torch's signature
        kwargs = kwargs or {}
        if func is _READ:
            self._read()
            return func(*args, **kwargs)
        if func.is_view:
            return func(*args, **kwargs)
        packet = func.overloadpacket
        given = list(_tensors((args, *kwargs.values())))
        multiplies = packet in flop_registry
        half = next((t.dtype for t in given if t.dtype in _HALF), None) if multiplies else None
        if half is None:
            out = func(*args, **kwargs)
        else:
            wide = tree_map_only(Tensor, Tensor.float, (args, kwargs))
            out = tree_map_only(Tensor, lambda t: t.to(half), func(*wide[0], **wide[1]))
        made = list(_tensors(out))
        for tensor in made:
            self._count(tensor)
        name = func._schema.name
        if not name.startswith(_NO_KERNELS):
            flops = flop_registry[packet](*args, **kwargs, out_val=out) if multiplies else 0
            self._launch(name, self._kernel_s(name, flops, given, made, half))
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
        self._alive.add(number)
        weakref.finalize(storage, self._free, number, size)

    def _free(self, number: int, size: int) -> None:
        self._alive.discard(number)
        self._allocate(-size)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for each in value:
            yield from _tensors(each)


def _float32(name: str) -> str:
    flags = read_flags()
    backend = "cudnn.conv" if "conv" in name else "cuda.matmul"
    return "tf32" if flags[f"{backend}.fp32_precision"] == "tf32" else "fp32"
