"""The tutorial itself, in fp32 and in mixed precision: loss and time by epoch, and its claims.

Two short epochs; `--perf-epochs 10` trains for ten whole ones, and judges by held-out digits.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean

import pytest

from perfsuite import (
    Bench,
    EpochsOf,
    Precision,
    activation_bytes_per_sample,
    finite,
    judge_claims,
    train,
    train_epochs,
)

EPOCHS, STEPS = 2, 32
KEPT = Path(".benchmarks/checkpoints")


@pytest.mark.one_rank
@pytest.mark.one_tree
def test_tutorial(perf: Bench, amp: Precision, pytestconfig: pytest.Config) -> None:
    """Both train from the same weights over the same batches, an epoch each in turns."""
    perf.require_learnable()
    whole = pytestconfig.getoption("perf_epochs")
    folder = pytestconfig.rootpath / KEPT if whole else None
    epochs, both = whole or EPOCHS, (Precision.fp32, amp)
    fp32, mixed = trainings = [training(perf, each, amp, epochs, folder) for each in both]
    progress = perf.progress("epochs of the tutorial")
    train_epochs(trainings, epochs=epochs, clock=perf.clock, progress=progress)

    perf.configure(epochs=epochs, steps=mixed.steps)
    perf.keep("epochs", {each.arm.label: list(map(asdict, each.runs)) for each in trainings})
    perf.keep("precisions", {"reference": Precision.fp32, "candidate": amp})
    perf.keep("pairs", [{"seed": 0, "reference": fp32.joined(), "candidate": mixed.joined()}])
    perf.timed(mixed.epoch_s)
    perf.metric("epoch_s", fmean(mixed.epoch_s), unit="s", better="lower")
    bad = {name for each in trainings for run in each.runs for name in run.non_finite}
    perf.gate(finite("finite", sorted(bad)))
    perf.show(table(perf, trainings))
    if whole:
        judge(perf, fp32, mixed, amp)
    for each in trainings:
        each.forget()


def training(
    perf: Bench, precision: Precision, amp: Precision, epochs: int, folder: Path | None
) -> EpochsOf:
    """Return a precision's training, as far as a checkpoint in the folder has it."""
    # The first step in a precision loads the libraries that it needs: it is no epoch's.
    thrown_away = perf.fresh(precision)
    train(thrown_away, thrown_away.take(1), perf.clock)
    arm, workload = perf.fresh(precision), perf.workload
    if folder is None:
        return EpochsOf(arm, STEPS)
    assert arm.epoch_steps is not None  # the tutorial's digits are counted
    about = {"workload": workload.name, "data": workload.data, "epochs": epochs}
    about |= {"hardware": perf.machine.hardware.key, "torch": perf.machine.software["torch"]}
    checkpoint = folder / f"{workload.name}-{precision}-of-{Precision.fp32}-and-{amp}.pt"
    found = EpochsOf(arm, arm.epoch_steps, about=about, checkpoint=checkpoint)
    if found.runs:
        perf.show(f"{precision} goes on after epoch {len(found.runs)}, kept in {checkpoint}")
    elif found.differs:
        why = f"{', '.join(sorted(found.differs))} may have changed since {checkpoint} was written"
        perf.show(f"{precision} begins anew: {why}")
    return found


def table(perf: Bench, trainings: Sequence[EpochsOf]) -> str:
    """Return the tutorial's table: a line an epoch, loss and elapsed time of both."""
    workload, labels = perf.workload, [each.arm.label for each in trainings]
    lines = [
        f"{workload.name}: {trainings[0].steps} steps on {workload.data} an epoch,"
        f" {perf.machine.hardware.name}",
        "epoch" + "".join(f"{f'{label} loss':>14}{'elapsed':>10}" for label in labels),
    ]
    for epoch, runs in enumerate(zip(*(each.runs for each in trainings), strict=True), start=1):
        cells = (f"{run.mean_loss:14.4f}{run.elapsed_s:8.2f} s" for run in runs)
        lines.append(f"{epoch:>5}" + "".join(cells))
    return "\n".join(lines)


def judge(perf: Bench, fp32: EpochsOf, mixed: EpochsOf, amp: Precision) -> None:
    """Hold the tutorial's three claims against what was found, and tell the held-out digits."""
    right = {}
    for arm in (fp32.arm, mixed.arm):
        assert arm.right is not None  # digits are held out of whole epochs
        right[arm.label] = arm.right().tolist()
    told = [
        f"{one} is right about {sum(r)} of {len(r)} held-out digits ({sum(r) / len(r):.1%})"
        for one, r in right.items()
    ]
    perf.keep("right", right)
    fresh = [perf.fresh(each.arm.precision) for each in (fp32, mixed)]
    peaks = [perf.peak_memory(arm.precision, steps=6) for arm in fresh]
    claims = judge_claims(
        amp,
        Precision.fp32,
        epoch_s=(fp32.epoch_s, mixed.epoch_s),
        loss=(fp32.epoch_loss, mixed.epoch_loss),
        right=(right[fp32.arm.label], right[mixed.arm.label]),
        kept_bytes=[activation_bytes_per_sample(arm) for arm in fresh],
        peak_bytes=[peak.allocated_bytes for peak in peaks if peak is not None],
        asked=perf.thresholds,
    )
    perf.gate(*(verdict for verdict, _ in claims))
    perf.show("\n".join([*told, *(sentence for _, sentence in claims)]))
