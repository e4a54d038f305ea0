"""Environments in which a step takes longer than it should, and how its gates come to be judged."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import cycle
from time import sleep
from typing import Any

import torch
from torch import Tensor, nn

from perfsuite.devices.choice import device_of
from perfsuite.devices.device import Clock
from perfsuite.devices.precision import Precision
from perfsuite.judging.gates import Outcome, Verdict, at_most
from perfsuite.judging.interleaving import Duet, duet
from perfsuite.judging.stalls import judge_stalls
from perfsuite.measuring.timing import time_block, warm_up
from perfsuite.training.arm import Arm
from perfsuite.training.batches import TrainingError
from perfsuite.training.cfg import TUTORIAL_CFG
from perfsuite.training.model import build_model
from perfsuite.training.snapshot import parts_of
from perfsuite.training.step import TrainStep
from sabotage.environments import (
    BATCH_SIZE,
    Batch,
    Check,
    adam,
    batches,
    one_convolution,
    two_convolutions,
)

SLOWER = 1.25
BUDGET_S = 60.0
STEPS = 2
STRETCH_STEPS, STALL_S = 10, 0.1
_BUSY_BATCH = 512


def arm(
    device: torch.device,
    model: Callable[[], nn.Module] = two_convolutions,
    batch_size: int = BATCH_SIZE,
) -> Arm:
    torch.manual_seed(0)
    made = model().to(device)
    step = TrainStep(made, adam(made.parameters()))
    return Arm(
        precision=Precision.fp32,
        step=step,
        device=device,
        batches=cycle(batches(device, 0, 8, batch_size)),
        parts=parts_of([made, step.optimizer]),
    )


def clock_for(device: torch.device) -> Clock:
    """Return the device's clock."""
    return device_of(device).clock()


def compared(gate: str, first: Arm, second: Arm, device: torch.device) -> Verdict:
    """Judge how much longer the second arm takes, by a duet that goes on until that is clear."""
    clock = clock_for(device)
    for each in (first, second):
        warm_up(each, clock, steps=STEPS)

    def judge(turns: Duet) -> Verdict:
        return at_most(gate, turns.ratio("B", over="A", confidence=0.99), SLOWER)

    turns = duet(
        lambda: time_block(first, clock, STEPS),
        lambda: time_block(second, clock, STEPS),
        clear=lambda so_far: judge(so_far).outcome is not Outcome.INCONCLUSIVE,
        budget_s=BUDGET_S,
    )
    return judge(turns)


def stalling(every: int | None) -> Check:
    """Return a check of how much longer stalls make the mean step than that of the healthy one."""

    def check(device: torch.device) -> tuple[Verdict, ...]:
        first, second = arm(device, one_convolution), arm(device, one_convolution)
        step, count = second.step, itertools.count(1)

        def stalls(batch: Batch) -> Any:
            if every is not None and next(count) % every == 0:
                sleep(STALL_S)
            return step(batch)

        second.step = stalls
        clock = clock_for(device)

        def judge(turns: Duet) -> Verdict:
            return judge_stalls(turns, SLOWER, confidence=0.99)

        turns = duet(
            lambda: time_block(first, clock, STRETCH_STEPS),
            lambda: time_block(second, clock, STRETCH_STEPS),
            clear=lambda so_far: judge(so_far).outcome is not Outcome.INCONCLUSIVE,
            budget_s=BUDGET_S,
        )
        return (judge(turns),)

    return check


class _Regressed(nn.Conv2d):
    """A convolution whose kernel has become many times slower, and no less right."""

    def forward(self, images: Tensor) -> Tensor:
        for _ in range(20):
            super().forward(images)
        return super().forward(images)


def regressed() -> nn.Module:
    model = two_convolutions()
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.__class__ = _Regressed
    return model


def one_operator(model: Callable[[], nn.Module]) -> Check:
    """Return a check of a model's step time against that of the healthy one."""
    return lambda device: (compared("step_time", arm(device), arm(device, model), device),)


def fed(wait_s: float) -> Check:
    """Return a check of a step that waits so long for each batch against one that does not."""

    def waiting(given: Iterable[Batch]) -> Iterator[Batch]:
        for batch in given:
            sleep(wait_s)
            yield batch

    def check(device: torch.device) -> tuple[Verdict, ...]:
        resident = arm(device)
        given = batches(device, 0, 8)
        pipeline = resident.fed_by(waiting(cycle(given)) if wait_s else given)
        return (compared("loader", resident, pipeline, device),)

    return check


def an_epoch(last: int) -> Check:
    """Return a check of an order whose epochs end with a batch of `last` images."""

    def check(device: torch.device) -> tuple[Verdict, ...]:
        *epoch, (images, labels) = batches(device, 0, 4)
        order = cycle([*epoch, (images[:last], labels[:last])])
        try:
            time_block(replace(arm(device), batches=order), clock_for(device), 8)
        except TrainingError as error:
            outcome, figure = Outcome.FAIL, str(error)
        else:
            outcome, figure = Outcome.PASS, f"batches of {BATCH_SIZE}"
        return (
            Verdict(gate="batches", outcome=outcome, figure=figure, threshold="all of one size"),
        )

    return check


@contextmanager
def _searching(on: bool) -> Iterator[None]:
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = on
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def _full_width() -> nn.Module:
    return build_model(TUTORIAL_CFG)


def without_search(planted: bool) -> Check:
    """Return a check of steps for which cuDNN does not look for its fastest algorithm."""

    def check(device: torch.device) -> tuple[Verdict, ...]:
        def searched(each: Arm, on: bool) -> Arm:
            step = each.step

            def searching(batch: Batch) -> Any:
                with _searching(on):
                    return step(batch)

            return replace(each, step=searching)

        # Of a toy the device waits for the host, and no algorithm makes a difference: so it is the
        # tutorial's network at its full width, with a batch that keeps a GPU busy.
        first, second = (
            searched(arm(device, _full_width, _BUSY_BATCH), on=on) for on in (True, not planted)
        )
        return (compared("step_time", first, second, device),)

    return check
