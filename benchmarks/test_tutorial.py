"""The tutorial itself: some epochs in fp32 and in mixed precision, with loss and time."""

from dataclasses import asdict
from statistics import fmean

import pytest

from perfsuite import Bench, Precision, TrainingRun, finite, train

EPOCHS, STEPS = 2, 32


@pytest.mark.one_tree
def test_tutorial(perf: Bench, amp: Precision) -> None:
    """Both train from the same weights over the same batches; the table says how it went."""
    perf.require_learnable()
    epochs: dict[Precision, list[TrainingRun]] = {}
    for precision in (Precision.fp32, amp):
        # The first step in a precision loads the libraries that it needs: it is no epoch's.
        thrown_away = perf.fresh(precision)
        train(thrown_away, thrown_away.take(1), perf.clock)
        arm = perf.fresh(precision)
        epochs[precision] = []
        for epoch in range(EPOCHS):
            epochs[precision].append(train(arm, arm.take(STEPS), perf.clock))
            perf.progress(f"epochs in {precision}")(epoch + 1, EPOCHS)

    perf.configure(epochs=EPOCHS, steps=STEPS)
    perf.keep("epochs", {p: [asdict(epoch) for epoch in run] for p, run in epochs.items()})
    perf.timed(epoch.elapsed_s for epoch in epochs[amp])
    perf.metric("epoch_s", fmean(e.elapsed_s for e in epochs[amp]), unit="s", better="lower")
    perf.gate(
        finite("finite", sorted({n for run in epochs.values() for e in run for n in e.non_finite}))
    )
    perf.show(table(perf, epochs))


def table(perf: Bench, epochs: dict[Precision, list[TrainingRun]]) -> str:
    """Return the tutorial's table: a line an epoch, loss and elapsed time of both."""
    workload = perf.workload
    lines = [
        f"{workload.name}: {STEPS} steps on {workload.data} an epoch, {perf.machine.hardware.name}",
        "epoch" + "".join(f"{f'{p} loss':>14}{'elapsed':>10}" for p in epochs),
    ]
    for epoch in range(EPOCHS):
        cells = (
            f"{run[epoch].mean_loss:14.4f}{run[epoch].elapsed_s:8.2f} s" for run in epochs.values()
        )
        lines.append(f"{epoch + 1:>5}" + "".join(cells))
    return "\n".join(lines)
