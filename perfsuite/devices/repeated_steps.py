"""Like steps on a simulated device: computed until two of them did the same, and then repeated.

A timing needs nothing of what a step computes, only what it launches. So the CPU computes a few of
hundreds of steps, and of a batch that was enlarged until the device is busy no more.
"""

import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves

from perfsuite.devices.timeline import Acts

REPEATS = 8
"""Before a step is computed again, and then twice as many each time: it may differ by now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    """What a step did when it was last computed, and how often that is repeated."""

    given: list[Any]  # shapes and dtypes of its batch
    acts: Acts
    repeats: int


class RepeatedSteps:
    """Steps of a simulation; `noted` returns the acts of whatever is done within."""

    def __init__(self, noted: Callable[[], AbstractContextManager[Acts]]) -> None:
        self._noted = noted
        self._last: weakref.WeakKeyDictionary[Any, _Step] = weakref.WeakKeyDictionary()
        self._left: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()

    def of(self, step: Callable[[Any], Any]) -> Callable[[Any], None]:
        """Return what takes a step, or repeats it; whatever it computes is thrown away."""
        try:
            hash(weakref.ref(step))
        except TypeError:  # nothing can be kept of it
            return step
        return partial(self._take, step)

    def _take(self, step: Callable[[Any], Any], batch: Any) -> None:
        given = [_told(leaf) for leaf in tree_leaves(batch)]
        last = self._last.get(step)
        if last is not None and last.given != given:
            last = None
        if last is not None and (left := self._left[step]):
            self._left[step] = left - 1
            for act, called_with in last.acts:
                act(*called_with)
            return
        with self._noted() as acts:
            step(batch)
        alike = last is not None and last.acts == acts
        repeats = (2 * last.repeats or REPEATS) if last is not None and alike else 0
        self._last[step] = _Step(given=given, acts=acts, repeats=repeats)
        self._left[step] = repeats


def _told(leaf: Any) -> Any:
    return (leaf.shape, leaf.dtype) if isinstance(leaf, Tensor) else type(leaf)
