"""Charts of training: loss curves, the gradient scaler's scale, and memory."""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from statistics import fmean

from perfsuite.records.schema import Benchmark
from perfsuite.records.wording import counted, short_name
from perfsuite.report import panels
from perfsuite.report.chart import Cell, Chart, Number, height_of_rows_in
from perfsuite.report.raw_figures import LossCurve, LossPair, TriedBatches, memory, seed_pairs

_OF_SEEDS = ("mean", "lowest", "highest")


def loss_curves(benchmark: Benchmark) -> Iterator[Chart]:
    """Show how both precisions learn, with the range of the seeds."""
    names, pairs = seed_pairs(benchmark)
    sides = [[pair.reference for pair in pairs], [pair.candidate for pair in pairs]]
    runs = {name: _over_seeds(side) for name, side in zip(names, sides, strict=True)}
    steps = max(map(len, runs.values()))
    if not steps:
        return
    shown = sorted({*range(0, steps, max(1, steps // 8)), steps - 1})
    yield Chart(
        panel=partial(panels.losses, runs=runs),
        title=short_name(benchmark.key),
        caption=f"Mean loss of {counted(len(pairs), 'seed')}; the bands reach from the lowest seed"
        " to the highest. A curve ends where a loss is not a finite number.",
        head=("step", *(f"{name} {what}" for name in names for what in _OF_SEEDS)),
        rows=[
            (Number(at + 1), *(cell for run in runs.values() for cell in _of_step(run, at)))
            for at in shown
        ],
    )


def _of_step(run: Sequence[tuple[float, float, float]], at: int) -> tuple[Cell, ...]:
    return tuple(map(Number, run[at])) if at < len(run) else ("",) * len(_OF_SEEDS)


def _over_seeds(runs: Sequence[LossCurve]) -> list[tuple[float, float, float]]:
    """Return mean, lowest and highest of the losses by step, up to one that is not finite."""
    found = []
    for losses in zip(*(run.losses for run in runs), strict=False):
        finite = [loss for loss in losses if loss is not None]
        if len(finite) < len(losses):
            break
        found.append((fmean(finite), min(finite), max(finite)))
    return found


def loss_scales(benchmark: Benchmark) -> Iterator[Chart]:
    """Show the gradient scaler's scale and the steps that it skipped, where there is a scaler."""
    _, pairs = seed_pairs(benchmark)
    runs = [(pair, *_scales_of(pair)) for pair in pairs if len(pair.candidate.scales) > 1]
    if not any(scale > 0 for _, scales, _ in runs for scale in scales):
        return
    yield Chart(
        panel=partial(panels.scales, runs=[(scales, falls) for _, scales, falls in runs]),
        title=f"{short_name(benchmark.key)}: loss scale",
        caption="The gradient scaler's scale, one line per seed. It falls where a step is skipped,"
        " which is marked with a cross.",
        head=("seed", "at first", "at last", "skipped steps", "it fell at step"),
        rows=[
            (
                Number(pair.seed),
                *(_cell(pair.candidate.scales[at], "not finite") for at in (0, -1)),
                _cell(pair.candidate.skipped_steps, "unknown"),
                ", ".join(map(str, falls)) or "none",
            )
            for pair, _, falls in runs
        ],
    )


def _scales_of(pair: LossPair) -> tuple[list[float], list[int]]:
    """Return the scales of a run, and the numbers of the steps at which they fall.

    What is not a finite number above zero has no place on a logarithmic axis and is NaN, which
    is less than nothing.
    """
    scales = [scale if scale else math.nan for scale in pair.candidate.scales]
    return scales, [at for at in range(1, len(scales)) if scales[at] < scales[at - 1]]


def _cell(value: float | None, otherwise: str) -> Cell:
    return otherwise if value is None else Number(value)


def memory_use(benchmark: Benchmark) -> Iterator[Chart]:
    """Show the bytes that each precision takes."""
    found = memory(benchmark)
    kept = {name: (size,) for name, size in found.activation_bytes_per_image.items()}
    peaks = {
        name: (each.allocated_bytes, each.reserved_bytes) for name, each in found.peaks.items()
    }
    name = short_name(benchmark.key)
    if kept:
        yield _bytes_chart(
            kept,
            ("kept per image",),
            unit="MiB an image",
            title=f"{name}: activations",
            caption="What autograd keeps for the backward pass, for each further image.",
        )
    if peaks:
        yield _bytes_chart(
            peaks,
            ("allocated", "reserved"),
            unit="MiB",
            title=f"{name}: peak on the GPU",
            caption="The peak of some training steps: what tensors took, and what was reserved"
            " for them.",
        )

    if found.largest_batches:
        yield _batches_chart(found.largest_batches, f"{name}: peak by batch")


def _batches_chart(batches: Mapping[str, TriedBatches], title: str) -> Chart:
    """Show the peaks of batches that were tried in all precisions."""
    peaks = [each.peaks for each in batches.values()]
    shown = sorted(set.intersection(*map(set, peaks)))
    mib = {n: [(size or 0.0) / 2**20 for size in (each[n] for each in peaks)] for n in shown}
    most = ", ".join(f"{each.samples:,} in {name}" for name, each in batches.items())
    return Chart(
        panel=partial(
            panels.bars,
            rows={f"{samples:,} samples": sizes for samples, sizes in mib.items()},
            kinds=tuple(batches),
            unit="MiB",
        ),
        title=title,
        caption="The most memory that two steps took, each batch in a fresh process; none where it"
        f" did not fit. The largest that fits has {most}.",
        head=("samples", *batches),
        rows=[
            (
                Number(samples),
                *(
                    "too large" if each[samples] is None else Number(each[samples] or 0, "B")
                    for each in peaks
                ),
            )
            for samples in shown
        ],
        height_in=height_of_rows_in(len(shown) * len(batches)),
    )


def _bytes_chart(
    sizes: Mapping[str, Sequence[float]],
    kinds: Sequence[str],
    *,
    unit: str,
    title: str,
    caption: str,
) -> Chart:
    mib = {name: [size / 2**20 for size in each] for name, each in sizes.items()}
    return Chart(
        panel=partial(panels.bars, rows=mib, kinds=kinds, unit=unit),
        title=title,
        caption=caption,
        head=("precision", *kinds),
        rows=[(name, *(Number(size, "B") for size in each)) for name, each in sizes.items()],
        height_in=height_of_rows_in(len(sizes) * len(kinds)),
    )
