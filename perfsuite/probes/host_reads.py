"""Counting how often a value is fetched from the device, on any device."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class HostReads(TorchDispatchMode):
    """Counts, while it is entered, every ``.item()``, ``float(tensor)`` and ``if tensor``.

    Args:
        device: whose values count; elsewhere there is nothing to wait for.
        apart_from: tensors that may be read, as those that are meant for the host.
    """

    def __init__(self, device: torch.device, *, apart_from: Iterable[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's
        self.count = 0
        self._device = device.type
        self._free = {tensor.data_ptr() for tensor in apart_from}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Hand the call through, and count it if it fetches a value."""
        del types  # part of torch's signature
        if func is torch.ops.aten._local_scalar_dense.default:
            (tensor,) = args
            counts = tensor.device.type == self._device and tensor.data_ptr() not in self._free
            self.count += counts
        return func(*args, **(kwargs or {}))
