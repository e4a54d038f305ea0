"""What a step is put into: models, factories, training runs, and regions that are never left."""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from itertools import islice

import torch
from torch import Tensor, nn

from perfsuite.devices.choice import device_of
from perfsuite.devices.precision import Precision
from perfsuite.judging.gates import Verdict
from perfsuite.judging.thresholds import ConvergenceLimits
from perfsuite.measuring.convergence import SeedPair, TrainingRun, judge, train
from perfsuite.probes.probe import MakeArm, Probe
from perfsuite.probes.registry import run_probe
from perfsuite.training.arm import Arm
from perfsuite.training.data import Digits, load_digits
from perfsuite.training.model import build_model
from perfsuite.training.snapshot import parts_of
from perfsuite.training.step import Criterion, TrainStep
from perfsuite.training.workload import Training, Workload

Batch = tuple[Tensor, Tensor]
Parameters = Iterable[nn.Parameter]

MakeModel = Callable[[], nn.Module]

Check = Callable[[torch.device], tuple[Verdict, ...]]
"""From a device to the verdicts of the gates that were asked."""

ASKED = ConvergenceLimits(margin=0.03, max_skipped=0.02, min_scale=2.0**10, max_scale=2.0**24)
STEPS = 40
BATCH_SIZE = 16


def two_convolutions() -> nn.Module:
    return build_model([[1, 8, 3, 2, 1], [8, 16, 3, 2, 1]])


def one_convolution() -> nn.Module:
    """Without the tutorial's depth and dropout it learns in a second what takes that a minute."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 5, 2, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 12 * 12, 10),
    )


class Transformer(nn.Module):
    """One layer of attention over the rows of an image, which are its tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Linear(28, 32)
        self.places = nn.Parameter(torch.randn(28, 32) / 10)
        self.layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, norm_first=True)
        self.norm = nn.LayerNorm(32)
        self.head = nn.Linear(32, 10)

    def forward(self, images: Tensor) -> Tensor:
        seen = self.layer(self.tokens(images.squeeze(1)) + self.places)
        logits: Tensor = self.head(self.norm(seen).mean(dim=1))
        return logits


class _Contiguous(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.contiguous()


def channels_last() -> nn.Module:
    return two_convolutions().to(memory_format=torch.channels_last)


def channels_last_lost() -> nn.Module:
    """A layer in the middle gives plain contiguous images to the layers after it."""
    layers = list(two_convolutions().children())
    model = nn.Sequential(*layers[:3], _Contiguous(), *layers[3:])
    return model.to(memory_format=torch.channels_last)


class _FreshLeaf(nn.Linear):
    """A layer that makes a new leaf of its weight in every step, which autocast then caches."""

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.linear(images, nn.Parameter(self.weight.detach()), self.bias)


def fresh_leaves() -> nn.Module:
    return nn.Sequential(nn.Flatten(), _FreshLeaf(28 * 28, 10))


def adam(parameters: Parameters) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=5e-4, fused=True)


def adam_not_fused(parameters: Parameters) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=5e-4)


def sgd(parameters: Parameters) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.3, fused=True)


def summed(logits: Tensor, labels: Tensor) -> Tensor:
    return nn.functional.cross_entropy(logits, labels, reduction="sum")


def _one_hot(labels: Tensor) -> Tensor:
    return nn.functional.one_hot(labels, 10).float()


def bce(logits: Tensor, labels: Tensor) -> Tensor:
    return nn.functional.binary_cross_entropy(logits.sigmoid(), _one_hot(labels))


def bce_with_logits(logits: Tensor, labels: Tensor) -> Tensor:
    return nn.functional.binary_cross_entropy_with_logits(logits, _one_hot(labels))


@cache
def digits(device: torch.device) -> Digits:
    return load_digits("mnist5k", device)


def batches(
    device: torch.device, seed: int, steps: int, batch_size: int = BATCH_SIZE
) -> list[Batch]:
    return list(islice(digits(device).batches(batch_size, seed), steps))


def arm_of(step: TrainStep) -> Arm:
    """Return an arm of a step, all of whose parts are in its state."""
    parts = [step.model, step.optimizer, step.scaler, *vars(step).get("kept", ())]
    return Arm(
        precision=step.precision,
        device=step.device,
        step=step,
        batches=iter(()),
        parts=parts_of(parts),
    )


def small_workload() -> Workload:
    """Return a workload of one convolution, which learns fast."""

    def make(precision: Precision, device: torch.device, seed: int) -> Training:
        model = one_convolution().to(device)
        step = TrainStep(model, adam(model.parameters()), precision=precision)
        batches = digits(device).batches(BATCH_SIZE, seed)
        return Training(step=step, batches=batches, state=[model, step.optimizer, step.scaler])

    return Workload(name="small", make=make, block_steps=1)


def factory(
    kind: type[TrainStep],
    device: torch.device,
    *,
    model: Callable[[], nn.Module] = two_convolutions,
    optimizer: Callable[[Parameters], torch.optim.Optimizer] = adam,
    criterion: Criterion = nn.functional.cross_entropy,
    seed: int = 0,
) -> MakeArm:
    def make(precision: Precision) -> Arm:
        torch.manual_seed(seed)
        made = model().to(device)
        step = kind(made, optimizer(made.parameters()), precision=precision, criterion=criterion)
        return arm_of(step)

    return make


def probed(
    kind: type[TrainStep],
    precision: Precision,
    *probes: Probe,
    model: Callable[[], nn.Module] = two_convolutions,
    optimizer: Callable[[Parameters], torch.optim.Optimizer] = adam,
    criterion: Criterion = nn.functional.cross_entropy,
) -> Check:
    """Return a check that runs these probes on such steps."""

    def check(device: torch.device) -> tuple[Verdict, ...]:
        make_step = factory(kind, device, model=model, optimizer=optimizer, criterion=criterion)
        (batch,) = batches(device, seed=0, steps=1)
        return tuple(run_probe(probe, make_step, precision, batch) for probe in probes)

    return check


def trained(
    kind: type[TrainStep],
    precision: Precision,
    *gates: str,
    optimizer: Callable[[Parameters], torch.optim.Optimizer] = adam,
    criterion: Criterion = nn.functional.cross_entropy,
    nan_at: int | None = None,
) -> Check:
    """Return a check that trains such steps against right ones at fp32, and judges these gates.

    `nan_at` is the step whose batch holds a NaN.
    """

    def pair(device: torch.device, seed: int) -> SeedPair:
        given = batches(device, seed, STEPS)
        make_step = factory(
            kind, device, model=one_convolution, optimizer=optimizer, criterion=criterion, seed=seed
        )
        return SeedPair(
            seed=seed,
            reference=_right(device, seed, optimizer, criterion, perturbed=False),
            candidate=_train(make_step(precision), _poisoned(given, nan_at), device),
            control=_right(device, seed, optimizer, criterion, perturbed=True),
        )

    def check(device: torch.device) -> tuple[Verdict, ...]:
        verdicts = judge([pair(device, seed) for seed in range(4)], ASKED)
        return tuple(verdict for verdict in verdicts if verdict.gate in gates)

    return check


@cache
def _right(
    device: torch.device,
    seed: int,
    optimizer: Callable[[Parameters], torch.optim.Optimizer],
    criterion: Criterion,
    *,
    perturbed: bool,
) -> TrainingRun:
    """Train right steps at fp32, which many rows are held against."""
    arm = factory(
        TrainStep,
        device,
        model=one_convolution,
        optimizer=optimizer,
        criterion=criterion,
        seed=seed,
    )(Precision.fp32)
    if perturbed:
        arm.perturb(seed)
    return _train(arm, batches(device, seed, STEPS), device)


def _train(arm: Arm, fed: list[Batch], device: torch.device) -> TrainingRun:
    return train(arm, fed, device_of(device).clock())


def _poisoned(given: Sequence[Batch], at: int | None) -> list[Batch]:
    fed = list(given)
    if at is not None:
        images, labels = fed[at]
        images = images.clone()
        images[0] = math.nan
        fed[at] = images, labels
    return fed


def together(*checks: Check) -> Check:
    return lambda device: tuple(verdict for check in checks for verdict in check(device))


def in_a_region(check: Check) -> Check:
    """Return the check inside an autocast region that is left only when all is over.

    Autocast forgets its casts of the weights where the outermost region ends; a training loop
    inside one keeps them all.
    """

    def inside(device: torch.device) -> tuple[Verdict, ...]:
        with torch.autocast(device.type, dtype=torch.bfloat16):
            return check(device)

    return inside
