"""Healthy trainings that are made in an unusual way are not blamed."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from probing import CPU, red
from torch import Tensor, nn

from perfsuite.devices.precision import Precision
from perfsuite.judging.gates import Outcome, Verdict
from perfsuite.probes import dtypes, evaluating, outcomes, products
from perfsuite.probes.probe import Probe
from perfsuite.probes.randomness import random_numbers
from perfsuite.probes.registry import PROBES, run_probe
from perfsuite.training.workload import Training, Workload

pytestmark = pytest.mark.usefixtures("narrow_head")

IMAGES, LABELS = torch.randn(16, 8, 32), torch.randint(4, (16,))


def verdict(
    probe: Probe,
    models: Callable[[], list[nn.Module]],
    logits: Callable[..., Tensor],
    batch: tuple[Tensor, Tensor] = (IMAGES, LABELS),
    precision: Precision = Precision.fp32,
) -> Verdict:
    """Return a probe's verdict of models, and how logits are made by them of a batch's inputs."""

    def make(precision: Precision, device: torch.device, _seed: int) -> Training:
        made = models()
        optimizer = torch.optim.SGD([p for each in made for p in each.parameters()], lr=1e-2)

        def step(batch: tuple[Tensor, Tensor]) -> Tensor:
            optimizer.zero_grad()
            with precision.autocast(device):
                found = logits(*made, batch[0])
            loss = nn.functional.cross_entropy(found.float(), batch[1])
            loss.backward()
            optimizer.step()
            return loss.detach()

        return Training(step=step, batches=[batch], state=[*made, optimizer])

    workload = Workload(name="unusual", make=make)
    return run_probe(probe, lambda each: workload.arm(each, CPU), precision, batch)


def passes(probe: Probe, *given: Any, **named: Any) -> None:
    """Assert that it does."""
    found = verdict(probe, *given, **named)
    assert found.outcome is Outcome.PASS, str(found)


def linear() -> list[nn.Module]:
    return [nn.Linear(32, 4)]


def of_complex(model: nn.Module, x: Tensor) -> Any:
    with torch.autocast("cpu", enabled=False):
        spectrum = torch.fft.rfft(x.float())
        return model(torch.fft.irfft(spectrum @ spectrum.mT @ spectrum, n=32).mean(1))


def of_whole_numbers(model: nn.Module, x: Tensor) -> Any:
    ones = torch.ones(16, 16, dtype=torch.int64)
    return model(x.mean(1) + (ones @ ones)[:, :1] * 1e-6)


def of_half_a_product(model: nn.Linear, x: Tensor) -> Tensor:
    return torch.addmm(model.bias, x.mean(1), model.weight.t(), alpha=0.5)


@pytest.mark.parametrize("probe", [products.product_dtypes, products.exact_products])
@pytest.mark.parametrize("logits", [of_complex, of_whole_numbers, of_half_a_product])
def test_products_that_no_precision_is_for_are_left_out(
    probe: Probe, logits: Callable[..., Tensor]
) -> None:
    passes(probe, linear, logits)


class Embedded(nn.Module):
    """Its embedding's gradients are sparse."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 16, sparse=True)
        self.head = nn.Linear(16, 4)

    def forward(self, tokens: Tensor) -> Any:
        return self.head(self.embedding(tokens).mean(1))


def test_sparse_gradients_are_looked_at() -> None:
    batch = (torch.randint(50, (16, 8)), LABELS)
    for probe in PROBES:
        passes(probe, lambda: [Embedded()], lambda model, x: model(x), batch=batch)


@pytest.mark.parametrize("momentum", [0.1, 0.0])
def test_layers_of_one_name_in_two_models_are_told_apart(momentum: float) -> None:
    def models() -> list[nn.Module]:
        return [
            nn.Sequential(nn.Linear(32, 8), nn.BatchNorm1d(8, momentum=momentum)),
            nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4)),
        ]

    found = verdict(outcomes.buffers, models, lambda one, other, x: other(one(x.mean(1))))
    if momentum:
        assert found.outcome is Outcome.PASS, str(found)
    else:
        assert red(found, "the running statistics of 0.1 never moved"), str(found)


class Detecting(nn.Linear):
    """Returns in evaluation mode as many numbers as are large."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # torch's name
        found = super().forward(input)
        return found if self.training else found[found > 0]


def test_outputs_whose_number_depends_on_values_are_not_compared() -> None:
    drawn = torch.Generator().manual_seed(0)
    batch = (torch.randn(512, 32, generator=drawn), torch.randint(4, (512,), generator=drawn))
    found = verdict(
        evaluating.evaluation,
        lambda: [Detecting(32, 4)],
        lambda model, x: model(x),
        batch=batch,
        precision=Precision.bf16,
    )
    assert found.outcome is Outcome.NOT_GATED, str(found)
    assert "tensors of other sizes than fp32's" in found.reason


class Twice:
    """Calls its model again in every second step, and may evaluate in it before that."""

    def __init__(self, *, stays: bool) -> None:
        self.steps, self.stays = Counter[nn.Module](), stays

    def __call__(self, model: nn.Module, x: Tensor) -> Any:
        self.steps[model] += 1
        found = model(x)
        if self.steps[model] % 2:
            model.train(not (self.stays and self.steps[model] > 2))
            found = found + 0.01 * model(x * 0.9)
            model.train()
        return found


@pytest.mark.parametrize("stays", [False, True])
def test_a_model_that_is_not_called_in_each_step_is_blamed_for_its_mode_alone(
    stays: bool,
) -> None:  # a case
    seen = verdict(evaluating.modes, linear, Twice(stays=stays), (IMAGES.mean(1), LABELS))
    if stays:
        assert red(seen, "the model in call 1 is in training mode in "), str(seen)
    else:
        assert seen.outcome is Outcome.PASS, str(seen)


class Masked(nn.Linear):
    """Adds a mask to its input, which is expanded."""

    def forward(self, input: Tensor, mask: Tensor | None = None) -> Tensor:  # noqa: A002  # torch's name
        masked = input if mask is None else input + mask
        return super().forward(masked.flatten(2).mean(1))


@pytest.mark.parametrize(
    ("logits", "strided"),
    [
        (lambda model, x: model(x[:, :-1]), False),
        (lambda model, x: model(x, torch.zeros(1, 8, 1).expand(16, 8, 32)), False),
        (lambda model, x: model(x[..., None], torch.zeros(1).expand(16, 8, 32, 1)), False),
        (lambda model, x: model(torch.stack([x, x], dim=-1)[..., :1]), True),
    ],
    ids=["text", "mask", "mask of images", "images"],
)
def test_images_alone_are_to_fill_their_memory(
    logits: Callable[..., Tensor], strided: bool
) -> None:
    seen = verdict(dtypes.memory_format, lambda: [Masked(32, 4)], logits)
    if strided:
        assert red(seen, "input [0] of a model is strided"), str(seen)
    else:
        assert seen.outcome is Outcome.PASS, str(seen)


def test_noise_on_gradients_is_no_pass_that_is_repeated() -> None:
    def models() -> list[nn.Module]:
        model = nn.Linear(32, 4)
        model.weight.register_hook(lambda gradient: gradient + 1e-3 * torch.randn_like(gradient))
        return [model]

    seen = verdict(random_numbers, models, lambda model, x: model(x.mean(1)))
    assert seen.figure == "128 random numbers a step", str(seen)
