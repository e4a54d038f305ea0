"""A loop of Accelerate takes the steps that it takes by itself, and the probes find its parts."""

import pytest

pytest.importorskip("accelerate")

from collections.abc import Callable
from typing import Any

import torch
from accelerate import Accelerator
from probing import CPU, not_passed
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from perfsuite.adapters.accelerate_loop import of_accelerator, own_state
from perfsuite.devices.precision import Precision
from perfsuite.training.batches import TrainingError
from perfsuite.training.workload import Training, Workload


def finetuning(accelerator: Accelerator, seed: int) -> Training:
    data = TensorDataset(torch.randn(32, 8), torch.arange(32) % 4)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    loader = DataLoader(data, batch_size=4, shuffle=True, drop_last=True)
    model, optimizer, schedule, loader = accelerator.prepare(model, optimizer, schedule, loader)

    def step(batch: list[Tensor]) -> Tensor:
        inputs, labels = batch
        with accelerator.accumulate(model):
            loss: Tensor = nn.functional.cross_entropy(model(inputs), labels)
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        return loss

    return Training(step=step, batches=loader, state=[model, optimizer, schedule], move=False)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_probes_pass(accumulate: int) -> None:
    workload = Workload(name="loop", make=of_accelerator(finetuning, accumulate=accumulate))
    assert not_passed(workload, Precision.bf16) == []


def scaled(accelerator: Accelerator, seed: int) -> Training:
    """Train in float16 as on a GPU: on a CPU Accelerate trains in float32, without a scaler."""
    accelerator.native_amp = True
    accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8, growth_interval=2)
    return finetuning(accelerator, seed)


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize(
    ("make", "precision"),
    [(finetuning, Precision.fp32), (finetuning, Precision.bf16), (scaled, Precision.fp16)],
    ids=["fp32", "bf16", "fp16"],
)
def test_it_learns_what_a_loop_learns(
    make: Callable[[Accelerator, int], Training], precision: Precision, accumulate: int
) -> None:
    adapted = of_accelerator(make, accumulate=accumulate)
    arm = Workload(name="loop", make=adapted).arm(precision, CPU, seed=3)
    batches: Any = arm.take(4)
    for batch in batches:
        arm.step(batch)

    mixed = str(precision) if precision.is_amp else "no"
    enter = own_state()  # as in a process of its own
    enter()
    torch.manual_seed(3)
    accelerator = Accelerator(
        cpu=True, mixed_precision=mixed, gradient_accumulation_steps=accumulate
    )
    alone = make(accelerator, 3)
    for batch in [each for some in batches for each in some]:
        alone.step(batch)
    (model,) = arm.models
    for found, wanted in zip(model.parameters(), alone.state[0].parameters(), strict=True):
        torch.testing.assert_close(found, wanted)
    if make is scaled:
        assert arm.scaler.get_scale() == accelerator.scaler.get_scale() == 2.0**10


def unscaled(accelerator: Accelerator, seed: int) -> Training:
    accelerator.native_amp = True
    return finetuning(accelerator, seed)


@pytest.mark.parametrize(
    ("make", "found"),
    [(finetuning, "fp32"), (unscaled, "fp16 without a gradient scaler")],
    ids=["fp32-instead", "no-scaler"],
)
def test_another_precision_than_was_asked_for_is_refused(
    make: Callable[[Accelerator, int], Training], found: str
) -> None:
    workload = Workload(name="loop", make=of_accelerator(make))
    told = rf"^fp16 was asked for on cpu, and this trains in {found}, not in fp16: .*on a device"
    with pytest.raises(TrainingError, match=told):
        workload.arm(Precision.fp16, CPU)


def test_a_call_is_a_step_of_the_optimizer_whatever_is_accumulated() -> None:
    arm = Workload(name="loop", make=of_accelerator(finetuning, accumulate=4)).arm(
        Precision.fp32, CPU
    )
    (optimizer,) = arm.optimizers
    batches: Any = arm.take(5)  # more than an epoch's two
    assert [len(batch) for batch in batches] == [4] * 5
    assert arm.samples(batches[0]) == 16
    for batch in batches:
        arm.step(batch)
    assert type(optimizer) is torch.optim.AdamW
    assert {int(state["step"]) for state in optimizer.state.values()} == {5}


def test_trainings_of_two_precisions_take_turns() -> None:
    workload = Workload(name="loop", make=of_accelerator(finetuning))
    seen: dict[Precision, torch.dtype] = {}
    arms = [workload.arm(precision, CPU) for precision in (Precision.fp32, Precision.bf16)]
    for arm in (*arms, *arms):

        def see(_: Any, __: Any, output: Tensor, precision: Precision = arm.precision) -> None:
            seen[precision] = output.dtype

        with next(arm.models[0].children()).register_forward_hook(see):
            arm.step(arm.take(1)[0])
    assert seen == {Precision.fp32: torch.float32, Precision.bf16: torch.bfloat16}
