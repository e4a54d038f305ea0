"""The collectives of a step by themselves: noted once, and repeated without any computation."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import repeat
from typing import Any

import torch
import torch.distributed as dist
from torch.utils._pytree import tree_leaves, tree_map

from perfsuite.measuring.collective_counts import collective_of
from perfsuite.measuring.tracing import Call, traced
from perfsuite.training.arm import Arm

_TO_ONE = frozenset({"send", "recv"})
"""Of them only the training knows an order in which no rank waits for ever."""


class Replay:
    """The collectives of one step, of the same kinds, groups, dtypes and sizes, in its order.

    Each is waited for before the next one begins. Those of a size share their tensors, so that they
    take little memory; what is in them does not matter to the time.
    """

    def __init__(self) -> None:
        self.unknown: set[str] = set()  # kinds that cannot be repeated
        self._calls: list[tuple[Any, Any, Any]] = []
        self._pool: dict[tuple[Any, ...], torch.Tensor] = {}

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._calls)

    @property
    def tensors(self) -> list[torch.Tensor]:
        """What they are called with, each size once."""
        return list(self._pool.values())

    def note(self, call: Call, arguments: Sequence[Any], named: Mapping[str, Any], _: Any) -> None:
        """Note an operator, if it is a collective."""
        kind = collective_of(call)
        if kind is None:
            return
        if kind in _TO_ONE:
            self.unknown.add(kind)
        seen = Counter[tuple[Any, ...]]()  # an operator's tensors are not each other's

        def pooled(value: Any) -> Any:
            if not isinstance(value, torch.Tensor):
                return value
            about = (value.shape, value.dtype, value.device)
            seen[about] += 1
            return self._pool.setdefault((*about, seen[about]), torch.zeros_like(value))

        operator = getattr(getattr(torch.ops, call.namespace), call.name)
        self._calls.append((operator, *tree_map(pooled, (tuple(arguments), dict(named)))))

    def step(self, _: Any = None) -> None:
        """Repeat the collectives that were noted."""
        for operator, arguments, named in self._calls:
            for result in tree_leaves(operator(*arguments, **named)):
                if isinstance(result, torch.ScriptObject):
                    dist.Work.unbox(result).wait()
                elif isinstance(result, torch.Tensor):  # as a functional one returns
                    torch.ops._c10d_functional.wait_tensor(result)


def noted(arm: Arm) -> Replay:
    """Take a step of a warm arm, and note its collectives; all ranks do so."""
    found = Replay()
    (batch,) = arm.take(1)
    with traced(look=found.note):
        arm.as_written().step(batch)
    return found


def replayed(replay: Replay, device: torch.device) -> Arm:
    """Return an arm whose step is what was noted."""
    nothing = torch.zeros((), device=device)

    def step(_: Any) -> torch.Tensor:
        replay.step()
        return nothing

    return Arm(step=step, batches=repeat(None), device=device, label="collectives alone")
