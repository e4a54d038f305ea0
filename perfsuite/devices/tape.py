"""Operators that the CPU computes, recorded once and computed again: a simulated graph.

As of a CUDA graph: what Python did between them is not done again, numbers that it handed over stay
as they were, and tensors stay where they are.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_flatten, tree_map_only


def recorded(
    step: Callable[[], Tensor], launch: Callable[[], AbstractContextManager[None]]
) -> Callable[[], Tensor]:
    """Return what computes the operators of a step again, within what `launch` returns."""
    tape = Tape()
    result = tape.record(step)

    def replay() -> Tensor:
        with launch():
            tape.replay()
        return result

    return replay


class Tape(TorchDispatchMode):
    """Records operators while entered; see `record` and `replay`."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's
        self._calls: list[tuple[Any, Any, Any, list[Tensor | None]]] = []
        self._made: set[int] = set()  # storages of results
        self._before: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}

    def record(self, step: Callable[[], Tensor]) -> Tensor:
        """Call it, undo what it changed in tensors of before, and return its result."""
        random = torch.get_rng_state()
        with self:
            result = step()
        for storage, value in self._before.values():
            storage.copy_(value)
        self._before.clear()
        torch.set_rng_state(random)
        return result.detach()

    def replay(self) -> None:
        """Compute all of it again, in place of the last results."""
        with torch.no_grad():
            for func, args, kwargs, results in self._calls:
                found, _ = tree_flatten(func(*args, **kwargs))
                for kept, value in zip(results, found, strict=True):
                    if kept is not None:
                        with _disable_current_modes():  # a graph's kernels write there at once
                            kept.copy_(value)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Compute, and record."""
        del types  # part of torch's signature
        if func is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("operation not permitted when stream is capturing")
        kwargs = kwargs or {}
        for tensor in tree_flatten((args, kwargs))[0]:
            if isinstance(tensor, Tensor):
                self._keep(tensor.untyped_storage())
        # Detached, or what is recorded would keep autograd's graph.
        recorded = tree_map_only(Tensor, Tensor.detach, (args, kwargs))
        out = func(*args, **kwargs)
        made, _ = tree_flatten(out)
        self._made.update(t.untyped_storage()._cdata for t in made if isinstance(t, Tensor))
        # An alias shows what lies in its tensor; anything else is written to where it was.
        fresh = [returned.alias_info is None for returned in func._schema.returns]
        if len(fresh) != len(made):  # a list of tensors, or nothing at all
            fresh = (fresh or [False])[:1] * len(made)
        results = [
            tensor.detach() if isinstance(tensor, Tensor) and new else None
            for tensor, new in zip(made, fresh, strict=True)
        ]
        self._calls.append((func, *recorded, results))
        return out

    def _keep(self, storage: torch.UntypedStorage) -> None:
        number = storage._cdata
        if number not in self._made and number not in self._before:
            self._before[number] = storage, storage.clone()
