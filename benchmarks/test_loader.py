"""Is training held up by its input? The tutorial's own pipeline against batches on the device."""

from pathlib import Path

import pytest

from perfsuite import Bench, Duet, Verdict, at_most, mnist_folder, mnist_loader


@pytest.mark.one_rank
@pytest.mark.one_tree
def test_loader_epoch(perf: Bench, tmp_path: Path) -> None:
    """Torchvision's MNIST, ToTensor and DataLoader feed the step that batches on the device fed."""
    # Mixed precision where it pays: the faster the step, the sooner the loader holds it up.
    precision = perf.machine.device.fast_precision
    arm = perf.arm(precision)
    batches = mnist_loader(mnist_folder(perf.workload.data, tmp_path), arm.samples(arm.take(1)[0]))
    asked = perf.thresholds.loader

    def judge(turns: Duet) -> Verdict:
        ratio = turns.ratio("B", over="A", confidence=asked.confidence)
        return at_most("loader", ratio, asked.max_ratio)

    turns = perf.duet(arm, arm.fed_by(batches), judge)

    show = perf.progress("an epoch through the loader")
    perf.clock.start()
    with perf.clock.taking(arm.step) as step:
        for done, (images, labels) in enumerate(batches, start=1):
            step((images.to(perf.device), labels.to(perf.device)))
            show(done, len(batches))
    epoch_s, _ = perf.clock.stop()

    # Shown and kept, and no figure to be compared: it is measured once.
    perf.timed([epoch_s])
    perf.configure(precision=precision, steps=len(batches))
    perf.keep("epoch", {"steps": len(batches), "epoch_s": epoch_s})
    said = f"an epoch of {len(batches)} {precision} steps takes {epoch_s:.1f} s through the loader"
    if turns.sifted.decides:
        share = 1 - 1 / turns.point("B", over="A")
        said += f"; {share:.0%} of a step there is not the step itself"
    perf.show(said)
