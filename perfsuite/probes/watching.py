"""An arm whose steps are watched, and that leads another, or is led by it, by its gradients."""

from collections import defaultdict, deque
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from perfsuite.devices.precision import backend_flags
from perfsuite.probes.probe import before_step, handed_scale, named_modules, on_forward
from perfsuite.training.arm import Arm
from perfsuite.training.batches import named_tensors
from perfsuite.training.parallel import local_of

_MOST = 2**14  # of a tensor's elements are looked at, or up to twice as many


class Called(NamedTuple):
    """A call of a model: what is needed to call it again, and what it returned."""

    module: nn.Module
    inputs: tuple[Any, ...]
    named: dict[str, Any]
    outputs: list[Tensor]  # sampled


def sampled(tensor: Tensor) -> Tensor:
    """Return a tensor's elements in float64, evenly spaced ones where they are many.

    Those of a sparse one too, as the gradients of an embedding may be, with its zeros; and this
    rank's of one that is sharded.
    """
    flat = local_of(tensor.detach()).to_dense().reshape(-1)
    return flat[:: max(1, len(flat) // _MOST | 1)].double()


def parameters_of(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """Return what an optimizer has to train, in its order."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def norm_of(tensor: Tensor) -> float:
    """Return a tensor's norm, for which the host waits."""
    return float(tensor.norm())


@dataclass
class Calls:
    """How often a module was called in all steps, and how often of them in training mode."""

    called: int = 0
    in_training: int = 0


@dataclass
class WatchedArm:
    """An arm whose steps are watched, while entered, and that may lead another or be led."""

    arm: Arm
    gradients: dict[str, float] = field(default_factory=dict)
    homeless: set[str] = field(default_factory=set)
    modes: dict[str, Calls] = field(default_factory=lambda: defaultdict(Calls))
    last: list[Called] = field(default_factory=list)  # of the latest step
    calls: int = 0

    def __post_init__(self) -> None:
        self._hooks = ExitStack()
        self._led_by: list[deque[list[Tensor | None]]] = [deque() for _ in self.arm.optimizers]
        self._leads: WatchedArm | None = None
        self._returned: set[int] = set()  # places of calls that gradients came back to
        self._modules = {module: name for name, module in named_modules(self.arm)}
        self._names = {id(p): name for name, p in self.arm.named_parameters().items()}
        self._norms = {
            name: (layer, layer.running_var.clone())
            for name, layer in named_modules(self.arm)
            if isinstance(layer, nn.modules.batchnorm._NormBase) and layer.running_var is not None
        }
        self._normalised: set[str] = set()
        self._begun = self._schedules()

    def __enter__(self) -> "WatchedArm":
        enter = self._hooks.enter_context
        for index, optimizer in enumerate(self.arm.optimizers):
            enter(before_step(optimizer, partial(self._before, index)))
        trained = {id(p) for each in self.arm.optimizers for p in parameters_of(each)}
        for name, parameter in self.arm.named_parameters().items():
            if parameter.requires_grad and id(parameter) not in trained:
                note = partial(self._note_homeless, name)
                self._hooks.callback(parameter.register_hook(note).remove)
        for name, (layer, _) in self._norms.items():
            enter(layer.register_forward_hook(partial(self._note_norm, name)))
        enter(on_forward(self.arm, self._note_call))
        return self

    def __exit__(self, *_: object) -> None:
        self._hooks.close()

    def step(self, batch: Any, leads: "WatchedArm | None" = None) -> None:
        """Take a step that leads another arm's next one, or is led if that one led."""
        self.last, self._leads, self._returned = [], leads, set()
        self.arm.step(batch)
        self.calls = len(self._returned)

    def _before(self, index: int, optimizer: torch.optim.Optimizer) -> None:
        scale = handed_scale(optimizer)
        parameters = parameters_of(optimizer)
        for parameter in parameters:
            name = self._names.get(id(parameter), "")
            if parameter.grad is not None and name not in self.gradients:
                found = sampled(parameter.grad)
                self.gradients[name] = norm_of(found) / scale / max(len(found), 1) ** 0.5
        if self._leads is not None:
            gradients = [p.grad if p.grad is None else p.grad / scale for p in parameters]
            self._leads._led_by[index].append(gradients)
        elif self._led_by[index]:
            for parameter, gradient in zip(parameters, self._led_by[index].popleft(), strict=True):
                if gradient is not None and parameter.grad is not None:
                    parameter.grad.copy_(gradient * scale)

    def _note_homeless(self, name: str, _: Tensor) -> None:
        self.homeless.add(name)

    def _note_norm(self, name: str, layer: nn.Module, *_: Any) -> None:
        if layer.training:
            self._normalised.add(name)

    def _note_call(self, module: nn.Module, inputs: Any, named: Any, output: Any) -> None:
        place = len(self.last)
        again = sum(called.module is module for called in self.last)
        for part in module.modules():
            name = self._modules.get(part, type(part).__name__)
            calls = self.modes[f"{name or 'the model'} in call {again}"]
            calls.called += 1
            calls.in_training += part.training
        tensors = [tensor for _, tensor in named_tensors(output) if tensor.is_floating_point()]
        self.last.append(Called(module, inputs, named, [sampled(each) for each in tensors]))
        for tensor in tensors:
            if tensor.requires_grad:
                tensor.register_hook(lambda _: self._returned.add(place))

    def still(self) -> list[str]:
        """Return the layers called in training mode whose running statistics did not move."""
        return [
            name
            for name, (layer, before) in self._norms.items()
            if name in self._normalised
            and isinstance(now := layer.running_var, Tensor)
            and torch.equal(now, before)
        ]

    def epochs(self) -> dict[str, int]:
        """Return by how much each schedule of learning rates went on."""
        return {name: now - self._begun[name] for name, now in self._schedules().items()}

    def _schedules(self) -> dict[str, int]:
        kind = torch.optim.lr_scheduler.LRScheduler
        parts = {name: part for name, part in self.arm.parts.items() if isinstance(part, kind)}
        return {name: int(part.last_epoch) for name, part in parts.items()}

    def outputs(self) -> list[Tensor]:
        """Return what the models returned in the last step."""
        return [each for called in self.last for each in called.outputs]

    def evaluated(self) -> list[Tensor]:
        """Return what the models return in evaluation mode of what the last step gave them.

        They are left in it.
        """
        arm = self.arm
        for model in arm.models:
            model.eval()
        found = []
        with torch.no_grad(), backend_flags(arm.precision), arm.precision.autocast(arm.device):
            for called in self.last:
                output = called.module(*called.inputs, **called.named)
                found += [sampled(t) for _, t in named_tensors(output) if t.is_floating_point()]
        return found
