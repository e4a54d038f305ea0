"""Planted faults of the passes: what is computed elsewhere, otherwise, or from other numbers."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.utils.checkpoint import checkpoint

from perfsuite.devices.precision import Precision, backend_flags
from perfsuite.probes.products import product_dtypes
from perfsuite.training.step import TrainStep
from sabotage import environments as env
from sabotage.row import CatalogueRow, probe_row


class Attending(nn.Module):
    """Attention over the rows of an image, whose products are functions and no layers."""

    escapes = False

    def __init__(self) -> None:
        super().__init__()
        self.joined = nn.Parameter(torch.randn(96, 28) / 5)
        self.head = nn.Linear(32, 10)

    def forward(self, images: Tensor) -> Tensor:
        query, key, value = linear(images.squeeze(1), self.joined).chunk(3, -1)
        if self.escapes:
            with torch.autocast(images.device.type, enabled=False):
                seen = self.attend(query.float(), key.float(), value.float())
        else:
            seen = self.attend(query, key, value)
        logits: Tensor = self.head(seen.mean(dim=1))
        return logits

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        scores = torch.einsum("nqd,nkd->nqk", query, key)
        return scores.softmax(-1) @ value


class AttendingInFloat32(Attending):
    """Its attention is outside of autocast."""

    escapes = True


class OnTheHost(nn.Linear):
    """A layer that is computed on the host."""

    def forward(self, images: Tensor) -> Tensor:
        assert self.bias is not None
        out = linear(images.flatten(1).cpu(), self.weight.cpu(), self.bias.cpu())
        return out.to(images.device)


class WithCalledModel(TrainStep):
    """A step that calls its model in some way."""

    def called(self, images: Tensor) -> Any:
        return self.model(images)

    def __call__(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch
        with self._flags:
            self.optimizer.zero_grad(set_to_none=True)
            with self._autocast:
                loss = self.criterion(self.called(images), labels)
            self.scaler.scale(loss).backward()
            self.scaler.step(self.optimizer)
            self.scaler.update()
        return loss.detach()


class Checkpointed(WithCalledModel):
    """The forward pass is computed again in the backward pass; right."""

    keeps_masks = True

    def called(self, images: Tensor) -> Any:
        return checkpoint(
            self.model, images, use_reentrant=False, preserve_rng_state=self.keeps_masks
        )


class CheckpointedWithOtherMasks(Checkpointed):
    """And drops out other units the second time."""

    keeps_masks = False


class _Again(torch.autograd.Function):
    """A checkpoint as one writes it oneself: backward knows nothing of autocast."""

    @staticmethod
    def forward(ctx: Any, model: Callable[..., Tensor], images: Tensor, _: Tensor) -> Tensor:
        ctx.model, ctx.images = model, images
        with torch.no_grad():
            return model(images)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        with torch.enable_grad():
            output = ctx.model(ctx.images)
        torch.autograd.backward(output, gradients[0].to(output.dtype))
        return None, None, None


class CheckpointedOutsideAutocast(WithCalledModel):
    """The forward pass is computed again, and in float32."""

    def called(self, images: Tensor) -> Any:
        return _Again.apply(self.model, images, images.new_zeros((), requires_grad=True))


class SeededInEachStep(TrainStep):
    """Sets the seed in each step."""

    def __call__(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        torch.manual_seed(0)
        return super().__call__(batch)


def _rounded(a: Tensor) -> Tensor:
    return a.bfloat16().to(a.dtype)


def _addmm(bias: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    out = a.new_empty(a.shape[0], b.shape[1])
    return torch.addmm(bias, _rounded(a), _rounded(b), beta=beta, alpha=alpha, out=out)


@contextmanager
def less_exact_kernel(device: torch.device) -> Iterator[None]:
    """Let layers' products compute in bfloat16 whatever the flags say, as a kernel may."""
    with ExitStack() as left:
        library = left.enter_context(torch.library._scoped_library("aten", "IMPL"))
        library.impl("addmm", _addmm, device.type.upper())
        yield


class ByALessExactKernel(TrainStep):
    """Float32 products of layers are computed in bfloat16, beneath all flags."""

    def __call__(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        with less_exact_kernel(self.device):
            return super().__call__(batch)


class Medium(TrainStep):
    """Lets oneDNN compute float32 in bfloat16, within the step."""

    def __call__(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch
        with backend_flags(self.precision):
            flags: Any = torch.backends.mkldnn
            flags.matmul.fp32_precision = "bf16"
            self.optimizer.zero_grad(set_to_none=True)
            loss = self.criterion(self.model(images), labels)
            loss.backward()
            self.optimizer.step()
        return loss.detach()


def of_products(number: int, plant: str, said: str, healthy: Any, planted: Any) -> CatalogueRow:
    """Return a row whose bug is in the model."""
    return CatalogueRow(
        number=number,
        plant=plant,
        because={"probe product_dtypes": said},
        healthy=env.probed(TrainStep, Precision.bf16, product_dtypes, model=healthy),
        planted=env.probed(TrainStep, Precision.bf16, product_dtypes, model=planted),
        needs_cuda="cpu" in said,
    )


PASSES: tuple[CatalogueRow, ...] = (
    of_products(
        34,
        "attention that is no layer is outside of autocast",
        "of the FLOPs in float32: bmm in forward",
        Attending,
        AttendingInFloat32,
    ),
    probe_row(
        35,
        "a checkpoint computes again outside of autocast",
        CheckpointedOutsideAutocast,
        Precision.bf16,
        {"probe product_dtypes": "of the FLOPs in float32"},
        twin=Checkpointed,
    ),
    of_products(
        36,
        "a layer is computed on the host",
        "of the FLOPs in float32 and on cpu",
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(784, 10)),
        lambda: nn.Sequential(OnTheHost(784, 10)),
    ),
    probe_row(
        37,
        "a kernel computes float32 products in bfloat16",
        ByALessExactKernel,
        Precision.fp32,
        {"probe exact_products": "a float32 addmm is off by"},
    ),
    probe_row(
        38,
        "the fp32 arm lets oneDNN compute in bfloat16",
        Medium,
        Precision.fp32,
        {"probe arithmetic": "float32 is computed as bf16"},
    ),
    probe_row(
        39,
        "the seed is set in each step",
        SeededInEachStep,
        Precision.bf16,
        {"probe random_numbers": "the second step draws the numbers that the first one drew"},
    ),
    probe_row(
        40,
        "a checkpoint drops out other units",
        CheckpointedWithOtherMasks,
        Precision.bf16,
        {"probe random_numbers": "backward draws numbers that the forward pass did not"},
        twin=Checkpointed,
    ),
)
