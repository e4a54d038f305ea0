"""Is training held up by its input? An epoch through the tutorial's own pipeline."""

from pathlib import Path

from perfsuite.bench import Bench
from perfsuite.data import loader, real_folder
from perfsuite.precision import Precision
from perfsuite.stats import median_s

BLOCKS = 8


def test_loader_epoch(perf: Bench, tmp_path: Path) -> None:
    """Torchvision's MNIST, ToTensor and DataLoader feed the step that batches on the device fed."""
    # Mixed precision where it pays: the faster the step, the sooner the loader holds it up.
    precision = perf.machine.amp[0] if perf.device.type == "cuda" else Precision.fp32
    arm = perf.arm(precision)
    resident_s = median_s([block.wall_s for block in perf.time(arm, blocks=BLOCKS)])

    batches = loader(real_folder(perf.digits.source, tmp_path), perf.workload.batch_size)
    show = perf.progress("an epoch through the loader")
    perf.clock.start()
    for done, (images, labels) in enumerate(batches, start=1):
        arm.step(images.to(perf.device), labels.to(perf.device))
        show(done, len(batches))
    epoch_s, _ = perf.clock.stop()

    perf.timed([epoch_s])
    perf.configure(precision=precision, steps=len(batches))
    perf.keep("epoch", {"steps": len(batches), "epoch_s": epoch_s, "resident_step_s": resident_s})
    perf.metric("epoch_s", epoch_s, unit="s", better="lower")
    share = 1 - resident_s * len(batches) / epoch_s
    perf.show(
        f"an epoch of {len(batches)} {precision} steps takes {epoch_s:.1f} s through the loader;"
        f" {share:.0%} of that is not the step itself"
    )
