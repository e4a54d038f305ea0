"""What a model would compute in on CUDA, asked of any machine: a forward pass without values."""

from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from perfsuite.devices.precision import Precision
from perfsuite.devices.pretended import pretended, why_not_pretended
from perfsuite.probes.probe import dtype_name
from perfsuite.training.batches import map_tensors, named_tensors

_NO_ARITHMETIC = {"aten::_to_copy", "aten::copy_", "aten::clone", "aten::empty", "aten::detach"}


@dataclass(frozen=True, kw_only=True)
class CudaDtypes:
    """In what the forward pass of a model would compute on CUDA.

    Attributes:
        operators: how often each operator returns each dtype, by name and dtype; casts, copies and
            views are left out.
        layers: the dtype that each layer returns, by name.
        outputs: the dtypes that the model returns.
        unknown: why nothing can be said, in a line; empty where something is.
    """

    operators: dict[tuple[str, str], int] = field(default_factory=dict)
    layers: dict[str, str] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    unknown: str = ""

    def __str__(self) -> str:
        if self.unknown:
            return f"unknown: {self.unknown}"
        lines = []
        for dtype in sorted({dtype for _, dtype in self.operators}):
            told = [
                f"{count} {name}" for (name, each), count in self.operators.items() if each == dtype
            ]
            lines.append(f"{dtype}: {', '.join(told)}")
        return "\n".join(lines)


def cuda_dtypes(model: nn.Module, *inputs: Any, precision: Precision) -> CudaDtypes:
    """Return in what a model's forward pass would compute on CUDA, by CUDA's own autocast.

    No GPU is needed, and the model is left as it is; torch has to be its CUDA build. A forward pass
    that reads values, or that mixes in tensors of the CPU, is unknown, as is one that fails.
    """
    if (why := why_not_pretended()) is not None:
        return CudaDtypes(unknown=why)
    layers: dict[str, str] = {}

    def see(name: str, _: nn.Module, __: Any, output: Any) -> None:
        for _way, tensor in named_tensors(output):
            layers[name] = dtype_name(tensor.dtype)

    try:
        with ExitStack() as entered, torch.no_grad():
            for name, layer in model.named_modules():
                if not list(layer.children()):
                    entered.enter_context(layer.register_forward_hook(partial(see, name)))
            there = entered.enter_context(pretended(Precision(precision)))
            held = [*model.named_parameters(), *model.named_buffers()]
            state = {name: there(tensor) for name, tensor in held}
            given = map_tensors(there, inputs)
            operators = entered.enter_context(_Operators())
            output = functional_call(model, state, given)
    except Exception as error:
        why = str(error).partition("\n")[0] or "no reason given"
        return CudaDtypes(unknown=f"the forward pass raises {type(error).__name__}: {why}")
    outputs = tuple(dtype_name(tensor.dtype) for _, tensor in named_tensors(output))
    return CudaDtypes(operators=dict(operators.found), layers=layers, outputs=outputs)


class _Operators(TorchDispatchMode):
    """Counts operators by the dtype that they return, while entered."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's
        self.found: Counter[tuple[str, str]] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Hand the call through, and count it."""
        del types  # part of torch's signature
        out = func(*args, **(kwargs or {}))
        name = func._schema.name
        made = [each for each in tree_flatten(out)[0] if isinstance(each, Tensor)]
        if made and made[0].is_floating_point() and not func.is_view and name not in _NO_ARITHMETIC:
            self.found[name.removeprefix("aten::"), dtype_name(made[0].dtype)] += 1
        return out
