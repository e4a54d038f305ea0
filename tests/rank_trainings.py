"""Trainings of two ranks with a fault each, and their healthy twins: what `two_ranks` looks at."""

import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)
from torch.nn.parallel import DistributedDataParallel

from perfsuite.devices.precision import Precision
from perfsuite.training.arm import Arm
from perfsuite.training.parallel import Parallel, parallel_of
from perfsuite.training.step import TrainStep
from perfsuite.training.workload import Training, Workload

CPU = torch.device("cpu")
BatchOfRank = tuple[Tensor, Tensor]
StepOfRank = Callable[[BatchOfRank], Tensor]
MakeStep = Callable[[Precision], TrainStep]


def network(*, norm: bool = True) -> nn.Sequential:
    norms = [nn.BatchNorm1d(32)] if norm else []
    return nn.Sequential(nn.Linear(16, 32), *norms, nn.ReLU(), nn.Linear(32, 4))


def batches(rank: int, many: int = 4) -> list[BatchOfRank]:
    drawn = torch.Generator().manual_seed(rank)
    images = [torch.randn(32, 16, generator=drawn) for _ in range(many)]
    return [(each, each[:, :4].argmax(1)) for each in images]


def adam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=1e-2, fused=True)


def spread(how: Parallel, kind: type[TrainStep] = TrainStep) -> MakeStep:
    def step(precision: Precision) -> TrainStep:
        model = network()
        return kind(model, adam(model), precision=precision, parallel=how)

    return step


class AveragingByHand(TrainStep):
    """Averages gradients itself, scaled, between backward and step."""

    def __call__(self, batch: BatchOfRank) -> Tensor:
        inputs, targets = batch
        self.optimizer.zero_grad(set_to_none=True)
        with self._flags, self._autocast:
            loss = self.criterion(self.model(inputs), targets)
        self.scaler.scale(loss).backward()
        self.average()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss.detach()

    def average(self) -> None:
        for parameter in self.model.parameters():
            assert parameter.grad is not None
            dist.all_reduce(parameter.grad)
            parameter.grad /= dist.get_world_size()


class AveragingTooLate(AveragingByHand):
    """Lets the scaler look at a rank's own gradients, before they are averaged."""

    def average(self) -> None:
        self.scaler.unscale_(self.optimizer)
        for parameter in self.model.parameters():
            assert parameter.grad is not None
            parameter.grad.nan_to_num_(0.0, 0.0, 0.0)
        super().average()


class DividingAgain(AveragingByHand):
    """Divides what DDP has averaged."""

    def average(self) -> None:
        for parameter in self.model.parameters():
            assert parameter.grad is not None
            parameter.grad /= dist.get_world_size()


class Drifting(TrainStep):
    """Changes a weight a little, each rank by its own number."""

    def __call__(self, batch: BatchOfRank) -> Tensor:
        loss = super().__call__(batch)
        with torch.no_grad():
            next(self.model.parameters()).mul_(1 + 1e-6 * dist.get_rank())
        return loss


class NotSynchronising(TrainStep):
    """Forgets that this is the last micro-batch."""

    def __call__(self, batch: BatchOfRank) -> Tensor:
        assert isinstance(self.model, DistributedDataParallel)
        with self.model.no_sync():
            return super().__call__(batch)


class Synchronising(TrainStep):
    """Decides itself when ranks meet, whatever was decided around it."""

    def __call__(self, batch: BatchOfRank) -> Tensor:
        assert isinstance(self.model, DistributedDataParallel)
        self.model.require_backward_grad_sync = True
        return super().__call__(batch)


class Clipping(TrainStep):
    """Clips what was averaged."""

    most = 0.01

    def __call__(self, batch: BatchOfRank) -> Tensor:
        inputs, targets = batch
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.criterion(self.model(inputs), targets)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.most)
        self.optimizer.step()
        return loss.detach()


def clipping_by_half(precision: Precision) -> TrainStep:
    """Clip to half of what the first step's gradients are."""
    with torch.random.fork_rng():
        first = spread("ddp")(precision)
    first(batches(dist.get_rank())[0])
    step = Clipping(model := network(), adam(model), precision=precision, parallel="ddp")
    given = [each.grad for each in first.model.parameters() if each.grad is not None]
    step.most = float(nn.utils.get_total_norm(given)) / 2
    return step


def plain(kind: type[TrainStep]) -> MakeStep:
    def step(precision: Precision) -> TrainStep:
        model = network()
        # Not fused: it would be handed the scale, and unscale by itself.
        return kind(model, torch.optim.Adam(model.parameters()), precision=precision)

    return step


def own_buffers(precision: Precision) -> TrainStep:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # another name is to come
        model = DistributedDataParallel(network(), broadcast_buffers=False)
    return TrainStep(model, adam(model), precision=precision)


def sharded_by_fsdp(precision: Precision) -> TrainStep:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # it is the first FSDP, and still in use
        model = FullyShardedDataParallel(network(), use_orig_params=True, device_id=CPU)
    assert parallel_of([model]) == "fsdp"
    return TrainStep(model, adam(model), precision=precision)


def own_seeds(precision: Precision) -> TrainStep:
    torch.manual_seed(dist.get_rank())
    return plain(AveragingByHand)(precision)


def summing(precision: Precision) -> TrainStep:
    def hook(_: Any, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:  # type: ignore[name-defined]  # by this name DDP asks for it
        summed = allreduce_hook(dist.distributed_c10d._get_default_group(), bucket)
        return summed.then(lambda done: done.value() * dist.get_world_size())

    model = DistributedDataParallel(network())
    model.register_comm_hook(None, hook)
    return TrainStep(model, adam(model), precision=precision)


def tensor_parallel(precision: Precision) -> TrainStep:
    how = {"0": ColwiseParallel(), "2": RowwiseParallel()}  # the last bias is whole on all ranks
    model = parallelize_module(network(norm=False), init_device_mesh("cpu", (2,)), how)
    return TrainStep(model, adam(model), precision=precision)


class OfExperts(nn.Module):
    """Each rank calls an expert of its own: a rank's own step gives the other no gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList([nn.Linear(16, 4), nn.Linear(16, 4)])

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.experts[dist.get_rank()](images)
        return found


def of_experts(precision: Precision) -> TrainStep:
    model = DistributedDataParallel(OfExperts(), find_unused_parameters=True)
    return TrainStep(model, adam(model), precision=precision)


def maker(make: MakeStep, *, same: bool = False, **about: Any) -> Callable[[Precision], Arm]:
    def training(precision: Precision, device: torch.device, seed: int) -> Training:
        step = make(precision)
        held = [step.model, step.optimizer, step.scaler]
        fed = batches(0 if same else dist.get_rank())
        return Training(step=step, batches=fed, state=held, **about)

    workload = Workload(name="two ranks", make=training)
    return lambda precision: workload.arm(precision, CPU)
