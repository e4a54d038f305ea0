"""Exhibits of training: loss curves, the gradient scaler's scale, and memory."""

import math
from collections.abc import Sequence
from functools import partial
from statistics import fmean

from perfsuite.records.schema import Benchmark
from perfsuite.records.wording import short_name
from perfsuite.report import panels
from perfsuite.report.figure import Cell, Exhibit, Number, bars, exhibit
from perfsuite.report.raw_figures import Pair, Training, memory, seed_pairs


def loss_curves(benchmarks: Sequence[Benchmark]) -> list[Exhibit]:
    """Show how fp32 and mixed precision learn, with the band of the seeds."""
    exhibits = []
    for benchmark in benchmarks:
        names, pairs = seed_pairs(benchmark)
        if not pairs:
            continue
        runs = {
            name: _over_seeds([getattr(pair, side) for pair in pairs])
            for name, side in zip(names, ("reference", "candidate"), strict=True)
        }
        steps = max(map(len, runs.values()))
        if not steps:
            continue
        shown = sorted({*range(0, steps, max(1, steps // 8)), steps - 1})
        exhibits.append(
            exhibit(
                partial(panels.losses, runs=runs),
                title=short_name(benchmark.key),
                caption=f"Mean loss of {len(pairs)} seeds; the bands reach from the lowest seed"
                " to the highest. A curve ends where a loss is not a finite number.",
                head=("step", *(f"{name} {what}" for name in names for what in _OF_SEEDS)),
                rows=[
                    (
                        Number(at + 1),
                        *(cell for name in names for cell in _of_step(runs[name], at)),
                    )
                    for at in shown
                ],
            )
        )
    return exhibits


_OF_SEEDS = ("mean", "lowest", "highest")


def _of_step(run: Sequence[tuple[float, float, float]], at: int) -> tuple[Cell, ...]:
    return tuple(map(Number, run[at])) if at < len(run) else ("",) * len(_OF_SEEDS)


def _over_seeds(runs: Sequence[Training]) -> list[tuple[float, float, float]]:
    """Return mean, lowest and highest of the losses by step, up to one that is not finite."""
    found = []
    for losses in zip(*(run.losses for run in runs), strict=False):
        finite = [loss for loss in losses if loss is not None]
        if len(finite) < len(losses):
            break
        found.append((fmean(finite), min(finite), max(finite)))
    return found


def loss_scales(benchmarks: Sequence[Benchmark]) -> list[Exhibit]:
    """Show the gradient scaler's scale and the steps that it skipped, where there is a scaler."""
    exhibits = []
    for benchmark in benchmarks:
        _, pairs = seed_pairs(benchmark)
        runs = [(pair, *_scales_of(pair)) for pair in pairs if len(pair.candidate.scales) > 1]
        if not any(scale > 0 for _, scales, _ in runs for scale in scales):
            continue
        exhibits.append(
            exhibit(
                partial(panels.scales, runs=[(scales, falls) for _, scales, falls in runs]),
                title=f"{short_name(benchmark.key)}: loss scale",
                caption="The gradient scaler's scale, a line a seed; it falls where a step is"
                " skipped, which is crossed.",
                head=("seed", "at first", "at last", "skipped steps", "it fell at step"),
                rows=[
                    (
                        Number(pair.seed),
                        *(_scale(pair.candidate.scales[at]) for at in (0, -1)),
                        _count(pair.candidate.skipped_steps),
                        ", ".join(map(str, falls)) or "none",
                    )
                    for pair, _, falls in runs
                ],
            )
        )
    return exhibits


def _scales_of(pair: Pair) -> tuple[list[float], list[int]]:
    """Return the scales of a run, and the numbers of the steps at which they fall.

    What is not a finite number above zero has no place on a logarithmic axis and is NaN, which
    is less than nothing.
    """
    scales = [scale if scale else math.nan for scale in pair.candidate.scales]
    return scales, [at for at in range(1, len(scales)) if scales[at] < scales[at - 1]]


def _scale(scale: float | None) -> Cell:
    return "not finite" if scale is None else Number(scale)


def _count(steps: int | None) -> Cell:
    return "unknown" if steps is None else Number(float(steps))


def memory_use(benchmarks: Sequence[Benchmark]) -> list[Exhibit]:
    """Show the bytes that each precision takes."""
    exhibits = []
    for benchmark in benchmarks:
        found = memory(benchmark)
        name = short_name(benchmark.key)
        kept = found.activation_bytes_per_image
        if kept:
            exhibits.append(
                bars(
                    {precision: (bytes_ / 2**20,) for precision, bytes_ in kept.items()},
                    ("kept for backward",),
                    unit="MiB an image",
                    title=f"{name}: activations",
                    caption="What autograd keeps for the backward pass, for each further image.",
                    head=("precision", "kept an image"),
                    rows=[(precision, Number(bytes_, "B")) for precision, bytes_ in kept.items()],
                )
            )
        if found.peaks:
            exhibits.append(
                bars(
                    {
                        precision: (peak.allocated_bytes / 2**20, peak.reserved_bytes / 2**20)
                        for precision, peak in found.peaks.items()
                    },
                    ("allocated", "reserved"),
                    unit="MiB",
                    title=f"{name}: peak on the GPU",
                    caption="The peak of some training steps: what tensors took, and what was"
                    " reserved for them.",
                    head=("precision", "allocated", "reserved"),
                    rows=[
                        (
                            precision,
                            Number(peak.allocated_bytes, "B"),
                            Number(peak.reserved_bytes, "B"),
                        )
                        for precision, peak in found.peaks.items()
                    ],
                )
            )
    return exhibits
