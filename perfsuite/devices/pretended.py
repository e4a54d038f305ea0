"""A GPU that is pretended: its tensors have no values, and autocast casts as on a real one."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from perfsuite.devices.precision import Precision

# What autocast asks of the machine before it casts for CUDA.
_ASKED: tuple[tuple[Any, str, Callable[..., bool]], ...] = (
    (torch.cuda.amp.common, "amp_definitely_not_available", lambda: False),
    (torch.cuda, "is_bf16_supported", lambda *_, **__: True),
)


def why_not_pretended() -> str | None:
    """Return why this torch cannot pretend a GPU, None if it can: its casts are CUDA's own."""
    return "this torch was built without CUDA" if torch.version.cuda is None else None


@contextmanager
def pretended(precision: Precision) -> Iterator[Callable[[Tensor], Tensor]]:
    """Compute no values, with autocast as on CUDA; yields what makes a tensor one that lies there.

    For a forward pass: autograd's engine would ask for a GPU.
    """
    with ExitStack() as left:
        for where, name, answer in _ASKED:
            left.callback(setattr, where, name, getattr(where, name))
            setattr(where, name, answer)
        place = torch.device("cuda", 0)
        left.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        left.enter_context(precision.autocast(place))
        yield lambda tensor: torch.empty_strided(
            tensor.shape, tensor.stride(), dtype=tensor.dtype, device=place
        )
