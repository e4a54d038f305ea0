"""A model over the ranks of the default process group: copied by DDP, or sharded by FSDP2."""

import sys
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from perfsuite.devices.precision import Precision
from perfsuite.training.batches import TrainingError

Parallel = Literal["ddp", "fsdp2"]


def spread(
    model: nn.Module, optimizer: torch.optim.Optimizer, how: Parallel, precision: Precision
) -> nn.Module:
    """Return the model as the ranks train it together; the optimizer has its parameters.

    With "ddp" each rank keeps all weights, which are rank 0's, and gradients are averaged. With
    "fsdp2" each keeps a share of each weight, and gathers a block when it computes with it. A
    block is a child of the model. FSDP2 casts weights and inputs itself: to the precision's dtype
    for the two passes, with gradients reduced and outputs returned in float32, so that autocast
    has nothing left to do. Layers that keep running statistics stay in float32, as under autocast,
    and before each forward pass buffers are made rank 0's, as DDP does.

    Raises:
        TrainingError: there is no process group, or the optimizer has taken steps already.
    """
    if not (dist.is_available() and dist.is_initialized()):
        raise TrainingError(
            f"parallel={how!r} needs a process group: start the ranks with torchrun, or call"
            " torch.distributed.init_process_group first"
        )
    if how == "ddp":
        return DistributedDataParallel(model)
    if optimizer.state:
        raise TrainingError(
            "parallel='fsdp2' makes other parameters of the model's: give it an optimizer that has"
            " taken no step"
        )
    before = [parameter for _, parameter in model.named_parameters()]
    _shard(model, precision)
    after = [parameter for _, parameter in model.named_parameters()]
    sharded = {id(one): other for one, other in zip(before, after, strict=True)}
    for group in optimizer.param_groups:
        group["params"] = [sharded.get(id(each), each) for each in group["params"]]
    return model


def _shard(model: nn.Module, precision: Precision) -> None:
    # It takes part of a second, and one rank has no use for it.
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    device = next(model.parameters()).device
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    dtype = precision.autocast_dtype
    policy = MixedPrecisionPolicy(
        param_dtype=dtype,
        reduce_dtype=None if dtype is None else torch.float32,
        output_dtype=None if dtype is None else torch.float32,
    )
    inner = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=policy.reduce_dtype)
    # Running statistics are float32, and so their layers' weights have to be.
    kind = nn.modules.batchnorm._NormBase
    norms: list[nn.Module] = [
        each for each in model.modules() if isinstance(each, kind) and [*each.parameters()]
    ]
    if norms:
        fully_shard(norms, mesh=mesh, mp_policy=MixedPrecisionPolicy(cast_forward_inputs=False))
    held = {id(parameter) for norm in norms for parameter in norm.parameters()}
    for block in _blocks(model):
        if any(id(parameter) not in held for parameter in block.parameters()):
            fully_shard(block, mesh=mesh, mp_policy=inner)
    fully_shard(model, mesh=mesh, mp_policy=policy)
    if [*model.buffers()]:
        model.register_forward_pre_hook(_share_buffers, prepend=True)


def _share_buffers(model: nn.Module, _: Any) -> None:
    # As DDP does it: all at once, where each by itself would wait for the one before.
    with torch.no_grad():
        group = dist.distributed_c10d._get_default_group()
        dist._broadcast_coalesced(group, [*model.buffers()], 2**28, 0)  # type: ignore[attr-defined]  # untold, but there


def _blocks(model: nn.Module) -> Iterator[nn.Module]:
    for child in model.children():
        if isinstance(child, nn.ModuleList | nn.ModuleDict):  # which are not called themselves
            yield from _blocks(child)
        else:
            yield child


def parallel_of(models: Iterable[nn.Module]) -> str | None:
    """Return how models are spread over ranks, None where they are not, or by other means."""
    parts = [part for model in models for part in model.modules()]
    if any(isinstance(part, DistributedDataParallel) for part in parts):
        return "ddp"
    if any(is_sharded(weight) for part in parts for weight in part.parameters(recurse=False)):
        return "fsdp2"
    return "fsdp" if sharded_weights(parts) else None


def sharded_weights(models: Iterable[nn.Module]) -> set[int]:
    """Return the ids of weights of which ranks keep different parts, by FSDP2 or by FSDP."""
    fsdp = sys.modules.get("torch.distributed.fsdp")  # which wraps nothing before it is imported
    first: Any = () if fsdp is None else fsdp.FullyShardedDataParallel
    return {
        id(weight)
        for model in models
        for part in model.modules()
        for weight in part.parameters(recurse=isinstance(part, first))
        if is_sharded(weight) or isinstance(part, first)
    }


def local_of(tensor: Tensor) -> Tensor:
    """Return what this rank keeps of a tensor: all of it, unless it is sharded."""
    # By its method: to import its class takes part of a second, in sessions of one rank too.
    to_local: Any = getattr(tensor, "to_local", None)
    return tensor if to_local is None else to_local()


def is_sharded(tensor: Tensor) -> bool:
    """Tell whether ranks keep different parts of a tensor."""
    return any(not each.is_replicate() for each in getattr(tensor, "placements", ()))


def beyond_fsdp(models: Iterable[nn.Module]) -> bool:
    """Tell whether weights are laid over ranks otherwise than FSDP2 does it, which splits each.

    So does tensor parallelism, whose ranks have to train on the same samples. A device mesh of
    several dimensions, or of some ranks only, does not tell which of them are for the samples.
    """
    parts = [part for model in models for part in model.modules()]
    laid: list[Any] = [
        weight
        for part in parts
        for weight in part.parameters(recurse=False)
        if hasattr(weight, "placements")
    ]
    fsdp = sys.modules.get("torch.distributed.fsdp")  # see above
    split = fsdp is not None and any(isinstance(part, fsdp.FSDPModule) for part in parts)
    return any(
        not (split and is_sharded(each) and each.device_mesh.shape == (dist.get_world_size(),))
        for each in laid
    )


def laid_as(tensor: Tensor, like: Tensor) -> Tensor:
    """Return a tensor, the same on all ranks, laid over them as another one is."""
    if not hasattr(like, "to_local"):
        return tensor
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(like, DTensor)
    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)
