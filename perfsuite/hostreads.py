"""Counting how often a value is fetched from the device, on any device."""

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["HostReads"]


class HostReads(TorchDispatchMode):
    """Counts, while it is entered, every ``.item()``, ``float(tensor)`` and ``if tensor``."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Hand the call through, and count it if it fetches a value."""
        del types  # part of torch's signature
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))
