"""A step that is captured as a graph: all that it launches is launched at once."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from perfsuite.devices.choice import device_of
from perfsuite.devices.device import DeviceError
from perfsuite.training.batches import TrainingError, map_tensors, named_tensors

PLAIN_STEPS = 3
"""Taken before a step is captured: they choose kernels, and make the optimizer's state."""


class GraphedStep:
    """A step as it is written, for PLAIN_STEPS, and then its graph.

    Plain steps and the captured one train, each on its own batch, so that nothing has to be put
    back. A state that is loaded into other tensors makes it begin again. A DeviceError where the
    device has no graphs.
    """

    def __init__(
        self, step: Callable[[Any], Any], parts: Mapping[str, Any], device: torch.device
    ) -> None:
        self._step, self._parts, self._device = step, parts, device_of(device)
        if not self._device.has_graphs:
            self._device.capture(lambda: torch.empty(0))  # which says so
        self._plain = 0
        self._replay: Callable[[], Tensor] | None = None
        self._batch: Any = None  # what the graph reads
        self._inputs: list[Tensor] = []  # the tensors in it
        self._held: list[int] = []  # where the state lay when it was captured
        self._loaded = False
        for part in parts.values():
            if isinstance(part, torch.optim.Optimizer):
                part.register_load_state_dict_post_hook(self._note_loading)
                # It would warn of plain steps, which come first.
                part._warned_capturable_if_run_uncaptured = True
            elif isinstance(part, torch.nn.Module):
                part.register_load_state_dict_post_hook(self._note_loading)

    def __call__(self, batch: Any) -> Tensor:
        """Take one step and return its loss.

        Raises:
            TrainingError: the step cannot be captured, or a batch has another shape than the first.
        """
        if self._loaded:
            self._loaded = False
            if self._replay is not None and self._held != self._addresses():
                self._replay, self._plain = None, 0
        if self._replay is None:
            if self._plain < PLAIN_STEPS:
                self._plain += 1
                with self._device.beside_capture():
                    return self._checked(self._step(batch))
            self._capture(batch)
        self.feed(batch)
        assert self._replay is not None  # it was captured
        return self._replay().clone()  # the next step writes to where it lies

    def feed(self, batch: Any) -> None:
        """Copy a batch to where the graph reads it."""
        given = [tensor for _, tensor in named_tensors(batch)]
        if [(t.shape, t.dtype) for t in given] != [(t.shape, t.dtype) for t in self._inputs]:
            raise TrainingError("a graph reads batches of one shape, and this one has another")
        for held, tensor in zip(self._inputs, given, strict=True):
            held.copy_(tensor, non_blocking=True)

    def _capture(self, batch: Any) -> None:
        self._batch = map_tensors(torch.clone, batch)
        self._inputs = [tensor for _, tensor in named_tensors(self._batch)]
        if not self._inputs:
            raise TrainingError("a graph reads its batch from tensors, and this one has none")
        cached = torch.is_autocast_cache_enabled()
        # What was cast before is not cast in the graph, which would go on reading the old cast.
        torch.clear_autocast_cache()
        torch.set_autocast_cache_enabled(False)
        try:
            self._replay = self._device.capture(lambda: self._checked(self._step(self._batch)))
        except (RuntimeError, DeviceError) as error:
            why = str(error).partition("\n")[0]
            raise TrainingError(f"the step cannot be captured as a graph: {why}") from error
        finally:
            torch.set_autocast_cache_enabled(cached)
            torch.clear_autocast_cache()
        self._held = self._addresses()

    @staticmethod
    def _checked(loss: Any) -> Tensor:
        if not isinstance(loss, Tensor):
            raise TrainingError(f"the step returned a {type(loss).__name__}: return the loss")
        return loss.detach()

    def _addresses(self) -> list[int]:
        """Return where the tensors of the state lie."""
        found: list[Tensor] = []
        for part in self._parts.values():
            if isinstance(part, torch.nn.Module):
                found += [*part.parameters(), *part.buffers()]
            elif isinstance(part, torch.optim.Optimizer):
                for held in (*part.state.values(), *part.param_groups):
                    found += [value for value in held.values() if isinstance(value, Tensor)]
        return [tensor.data_ptr() for tensor in found]

    def _note_loading(self, *_: Any) -> None:
        self._loaded = True
