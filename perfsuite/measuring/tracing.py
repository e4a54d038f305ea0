"""Tracing a step: each operator that it runs, in which phase, and where in the source it began.

A dispatch mode sees products that are functions as well as those of layers.
"""

import linecache
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from perfsuite.measuring.model_flops import flops_of, name_of
from perfsuite.measuring.sites import (
    UNKNOWN,
    attention_calls,
    current_node,
    in_backward,
    line_of_source,
    next_number,
)

_FREE = ("aten::detach", "aten::lift_fresh")  # views that do not say that they are


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """An operator that was called, other than a view.

    Attributes:
        phase: forward, backward, optimizer, or between: what is done to gradients and weights
            outside of them.
        name: of the operator, without its overload.
        inputs: tensors among its arguments, as they were before it.
        outputs: tensors that it returned.
        site: the module and the line of source; in backward those of the forward pass.
        namespace: the library that defines it.
        in_module: whether the forward of a module was running.
        recorded: whether autograd recorded it, as it does a forward pass that backward repeats.
        of_attention: whether torch's scaled_dot_product_attention chose it, or its backward.
        flops: of a product of which they are known, 0 for anything else.
        fresh_bytes: of storages that it made.
        drawn: random numbers.
        drawn_from: tells the state of the generator that they were drawn from; 0 without any.
    """

    phase: str
    name: str
    inputs: tuple["Seen", ...]
    outputs: tuple["Seen", ...]
    site: str
    namespace: str = "aten"
    in_module: bool = False
    recorded: bool = False
    of_attention: bool = False
    flops: int = 0
    fresh_bytes: int = 0
    drawn: int = 0
    drawn_from: int = 0


@dataclass(frozen=True, slots=True)
class Seen:
    """What is to be known of a tensor once it may be gone."""

    dtype: str
    device: str
    layout: str  # contiguous, channels_last, or other
    elements: int


@dataclass(eq=False)
class Trace:
    """What a step did, as far as operators tell."""

    calls: list[Call] = field(default_factory=list)
    optimizer_steps: int = 0
    live_bytes: int = 0  # of storages that the step made, and that are alive
    peak_bytes: int = 0

    def made(self, nbytes: int) -> None:
        """Note a storage that was made."""
        self.live_bytes += nbytes
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)

    def freed(self, nbytes: int) -> None:
        """Note that a storage is gone."""
        self.live_bytes -= nbytes


Look = Callable[[Call, Sequence[Any], Mapping[str, Any], Any], None]
"""Is shown a call, its arguments, those by name, and its result, to look at their values."""


@contextmanager
def traced(models: Sequence[nn.Module] = (), look: Look | None = None) -> Iterator[Trace]:
    """Trace what runs within; modules are told by their names in `models`.

    What is compiled runs uncompiled meanwhile. Operators that `look` calls are not traced.
    """
    linecache.checkcache()
    mode = _Tracing(models, look)
    with ExitStack() as stack:
        for handle in (
            register_module_forward_pre_hook(mode.enter_module),
            register_module_forward_hook(mode.leave_module, always_call=True),
            register_optimizer_step_pre_hook(mode.enter_optimizer),
            register_optimizer_step_post_hook(mode.leave_optimizer),
        ):
            stack.callback(handle.remove)
        stack.enter_context(uncompiled())
        stack.enter_context(mode)
        yield mode.trace


@contextmanager
def uncompiled() -> Iterator[None]:
    """Run what is compiled as it is written: operators within a graph cannot be seen."""
    with torch.compiler.set_stance("force_eager"), warnings.catch_warnings():
        # What looks on hooks into all modules, of which a compiled one warns.
        warnings.filterwarnings("ignore", "Using `torch.compile", UserWarning)
        yield


class _Tracing(TorchDispatchMode):
    def __init__(self, models: Sequence[nn.Module], look: Look | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch gives it no types
        self.trace = Trace()
        self._look = look
        self._names = {
            module: name
            for model in models
            for name, module in model.named_modules(remove_duplicate=False)
        }
        self._parameters = {
            id(parameter): name for model in models for name, parameter in model.named_parameters()
        }
        self._within: list[str] = []  # modules whose forward is running, the innermost last
        self._optimizing = self._has_closure = False
        # Of nodes of the autograd graph, by their number: their sites, and which are attention's.
        self._sites: dict[int, tuple[str, bool]] = {}

    def enter_module(self, module: nn.Module, _: Any) -> None:
        name, kind = self._names.get(module, ""), type(module).__name__
        self._within.append(f"{name} ({kind})" if name else kind)

    def leave_module(self, *_: Any) -> None:
        if self._within:
            self._within.pop()

    def enter_optimizer(self, _: Any, arguments: Any, named: Any) -> None:
        self._optimizing = True
        self._has_closure = any(map(callable, (*arguments[1:], *named.values())))

    def leave_optimizer(self, *_: Any) -> None:
        self._optimizing = False
        self.trace.optimizer_steps += 1

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if any(hasattr(each, "__tensor_flatten__") for each in types):
            return NotImplemented  # as of a DTensor, which calls operators on what it wraps
        kwargs = kwargs or {}
        site, of_attention = self._site()
        given = tensors_in((args, kwargs))
        inputs = tuple(map(_seen, given))  # before: an operator in place changes them
        drawing = torch.Tag.nondeterministic_seeded in func.tags
        state = _random_state(given, kwargs) if drawing else None
        result = func(*args, **kwargs)
        if func.is_view or func.namespace == "profiler" or func.name() in _FREE:
            return result
        returned = tensors_in(result)
        drawn = drawn_from = 0
        if state is not None and not torch.equal(state, _random_state(given, kwargs)):
            drawn = sum(tensor.numel() for tensor in returned[:1])
            drawn_from = hash(state.numpy().tobytes())
        call = Call(
            phase=self._phase(),
            name=name_of(func),
            inputs=inputs,
            outputs=tuple(map(_seen, returned)),
            site=site,
            namespace=func.namespace,
            in_module=bool(self._within),
            recorded=torch.is_grad_enabled(),
            of_attention=of_attention,
            flops=flops_of(func, args, kwargs, result) or 0,
            fresh_bytes=self._note_storages(given, returned),
            drawn=drawn,
            drawn_from=drawn_from,
        )
        self.trace.calls.append(call)
        if self._look is not None:
            self._look(call, args, kwargs, result)
        return result

    def _phase(self) -> str:
        if self._optimizing and not self._has_closure:
            return "optimizer"
        if in_backward():
            return "backward"
        if torch.is_grad_enabled():
            return "forward"
        return "optimizer" if self._optimizing else "between"

    def _site(self) -> tuple[str, bool]:
        line = line_of_source()
        if line is None:  # called by autograd's engine
            return self._site_of_node()
        site = f"{self._within[-1]}, {line}" if self._within else line, attention_calls()
        if not in_backward() and (number := next_number()) is not None:
            # The node that this operator is the forward of was made a moment ago; whatever
            # else runs before the next one is made is a part of it.
            self._sites.setdefault(number - 1, site)
        return site

    def _site_of_node(self) -> tuple[str, bool]:
        node = current_node()
        if node is None:
            return UNKNOWN, False
        if (parameter := getattr(node, "variable", None)) is not None:
            return f"the gradient of {self._parameters.get(id(parameter), 'a leaf')}", False
        return self._sites.get(node._sequence_nr(), (UNKNOWN, False))

    def _note_storages(self, given: Sequence[Tensor], returned: Sequence[Tensor]) -> int:
        known = {storage.data_ptr() for storage in _storages(given)}
        fresh_bytes = 0
        for storage in _storages(returned):
            address, nbytes = storage.data_ptr(), storage.nbytes()
            if nbytes and address not in known:
                known.add(address)
                fresh_bytes += nbytes
                self.trace.made(nbytes)
                weakref.finalize(storage, self.trace.freed, nbytes).atexit = False
        return fresh_bytes


def tensors_in(value: Any) -> list[Tensor]:
    """Return the tensors in any nesting of tuples, lists and mappings."""
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


def _storages(tensors: Sequence[Tensor]) -> Iterator[torch.UntypedStorage]:
    # A sparse tensor has none: its indices and values are tensors of their own. Nor has one that
    # wraps another, as what an asynchronous collective returns.
    return (
        each.untyped_storage()
        for each in tensors
        if each.layout is torch.strided and not hasattr(each, "__tensor_flatten__")
    )


def _seen(tensor: Tensor) -> Seen:
    layout = "other"
    if tensor.layout is not torch.strided or tensor.is_contiguous():
        layout = "contiguous"
    elif tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last):
        layout = "channels_last"
    return Seen(str(tensor.dtype)[6:], tensor.device.type, layout, tensor.numel())


def _random_state(tensors: Sequence[Tensor], named: Mapping[str, Any]) -> Tensor:
    """Return the state of the generator of the device that an operator draws on."""
    device = named.get("device")
    if device is None:  # where its tensors lie
        device = next((each.device for each in tensors if each.device.type != "cpu"), None)
    if device is None or device.type in ("cpu", "meta"):
        return torch.get_rng_state()
    state: Tensor = torch.get_device_module(device).get_rng_state(device)
    return state
