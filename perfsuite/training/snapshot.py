"""What a step changes: copied, put back, and compared."""

import copy
import random
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from perfsuite.devices.choice import device_of
from perfsuite.training.batches import TrainingError, fields_of
from perfsuite.training.parallel import local_of


def parts_of(state: Any, name: str = "state") -> dict[str, Any]:
    """Return what has a ``state_dict`` in lists, tuples and mappings of such things, by name.

    Raises:
        TrainingError: something has none.
    """
    if hasattr(state, "state_dict") and hasattr(state, "load_state_dict"):
        return {name: state}
    held = fields_of(state)
    if held is None:
        raise TrainingError(
            f"{name} is of type {type(state).__name__}, which has no state_dict and"
            " load_state_dict: give it both, or leave it out if no step changes it"
        )
    return {
        where: part
        for way, each in held.items()
        for where, part in parts_of(each, name + way).items()
    }


def snapshot(parts: Mapping[str, Any], device: torch.device) -> Callable[[], None]:
    """Copy all that a step changes, random state included; return what goes back to that.

    Raises:
        TrainingError: something cannot be copied.
    """
    return partial(put_back, parts, device, captured(parts, device))


def captured(parts: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """Return a copy of all that a step changes, random state included, which can be saved.

    Raises:
        TrainingError: something cannot be copied.
    """
    return {
        "parts": states_of(parts),
        "buffers": [buffer.clone() for buffer in _unsaved_buffers(parts)],
        "random": random_state(device),
    }


def put_back(parts: Mapping[str, Any], device: torch.device, saved: Mapping[str, Any]) -> None:
    """Let all that a step changes be as it was `captured`, be it of this process or another."""
    for name, part in parts.items():
        # A deep copy, since an optimizer keeps tensors that the next step would change.
        _load(part, copy.deepcopy(saved["parts"][name]))
        if hasattr(part, "zero_grad"):
            part.zero_grad(set_to_none=True)
    with torch.no_grad():
        for buffer, value in zip(_unsaved_buffers(parts), saved["buffers"], strict=True):
            buffer.copy_(value)
    set_random_state(device, saved["random"])


def random_state(device: torch.device) -> tuple[Any, ...]:
    """Return the state of all random numbers: Python's, numpy's, the host's and the device's."""
    own = device_of(device).random_state()
    return random.getstate(), np.random.get_state(), torch.get_rng_state(), own


def set_random_state(device: torch.device, state: tuple[Any, ...]) -> None:
    """Go back to what `random_state` returned."""
    python, numpy, host, own = state
    random.setstate(python)
    np.random.set_state(numpy)
    torch.set_rng_state(host)
    if own is not None:
        device_of(device).set_random_state(own)


def _load(part: Any, state: Any) -> None:
    """Load a state; an optimizer's tensors stay where they are, since a graph may use them."""
    held = {(way, name): value for way, name, value, _ in _optimizer_tensors(part)}
    part.load_state_dict(state)
    with torch.no_grad():
        for way, name, value, where in list(_optimizer_tensors(part)):
            kept = held.get((way, name))
            if kept is not None and (kept.shape, kept.dtype, kept.device) == (
                value.shape,
                value.dtype,
                value.device,
            ):
                where[name] = kept.copy_(value)


def _optimizer_tensors(part: Any) -> Iterator[tuple[int, str, Tensor, dict[str, Any]]]:
    """Yield an optimizer's tensors by their place: its state's, and learning rates."""
    if not isinstance(part, torch.optim.Optimizer):
        return
    states = [(id(parameter), state) for parameter, state in part.state.items()]
    for way, where in [*states, *enumerate(part.param_groups)]:
        for name, value in where.items():
            if isinstance(value, Tensor):
                yield way, name, value, where


def _unsaved_buffers(parts: Mapping[str, Any]) -> Iterator[Tensor]:
    """Yield the buffers of modules that their state_dict leaves out."""
    for part in parts.values():
        if isinstance(part, nn.Module):
            kept = part.state_dict(keep_vars=True)
            yield from (buffer for name, buffer in part.named_buffers() if name not in kept)


def states_of(parts: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of the state of all parts; TrainingError where something cannot be copied."""
    return {name: _copy(part.state_dict(), f"{name}.state_dict()") for name, part in parts.items()}


def _copy(value: Any, name: str) -> Any:
    try:
        return copy.deepcopy(value)
    except Exception as error:
        for way, each in (fields_of(value) or {}).items():
            _copy(each, name + way)  # to name the one that is to blame
        why = str(error).partition("\n")[0]
        raise TrainingError(
            f"{name}, of type {type(value).__name__}, cannot be copied ({why}): let state_dict"
            " return detached tensors, numbers, and lists and mappings of them"
        ) from error


def state_difference(first: Mapping[str, Any], second: Mapping[str, Any]) -> str | None:
    """Return the way to the first thing in which two results of `states_of` differ, if any."""
    found = (difference(first[name], second[name], name) for name in first)
    return next((way for way in found if way is not None), None)


def difference(first: Any, second: Any, name: str = "") -> str | None:
    """Return the way to the first thing in which two states differ, None if they are alike.

    Of what is sharded over ranks each compares its own part.
    """
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        first, second = local_of(first), local_of(second)
        alike = first.shape == second.shape and torch.equal(first.nan_to_num(), second.nan_to_num())
        return None if alike else name
    fields, others = fields_of(first), fields_of(second)
    if fields is None or others is None:
        return None if first is second or first == second else name
    for way in fields | others:
        if way not in fields or way not in others:
            return name + way
        if (found := difference(fields[way], others[way], name + way)) is not None:
            return found
    return None
