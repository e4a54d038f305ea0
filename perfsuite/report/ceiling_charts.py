"""Charts of ceilings: the most that the device was seen to do, and what share a step reaches."""

from collections.abc import Iterator, Sequence
from functools import partial

from perfsuite.records.schema import Benchmark
from perfsuite.records.wording import short_name
from perfsuite.report import panels
from perfsuite.report.chart import Cell, Chart, Number, height_of_rows_in
from perfsuite.report.raw_figures import ceilings, rates


def shares_of_ceiling(benchmarks: Sequence[Benchmark]) -> Iterator[Chart]:
    """Show how many FLOP/s a step does, and over which ceiling."""
    found = [
        (short_name(each.key), rate["TFLOP/s"], rate["share of ceiling"])
        for each in benchmarks
        if {"TFLOP/s", "share of ceiling"} <= (rate := rates(each)).keys()
    ]
    if not found:
        return
    yield Chart(
        panel=partial(
            panels.bars,
            rows={name: [tflops, tflops / share] for name, tflops, share in found},
            kinds=["step", "ceiling"],
            unit="TFLOP/s",
        ),
        title="Share of ceiling",
        caption="FLOPs of the model's forward and backward pass, what is computed anew left out,"
        " over the fastest product or convolution of this run in that precision (MFU).",
        head=("step", "TFLOP/s", "ceiling", "share"),
        rows=[
            (name, Number(tflops, "TFLOP/s"), Number(tflops / share, "TFLOP/s"), f"{share:.1%}")
            for name, tflops, share in found
        ],
        height_in=height_of_rows_in(2 * len(found)),
    )


def device_ceilings(benchmarks: Sequence[Benchmark]) -> Iterator[Chart]:
    """Show the most that the device was seen to do, by the last benchmark that asked."""
    known = [found for each in benchmarks if (found := ceilings(each)) is not None]
    if not known or not known[-1].products:
        return
    last = known[-1]
    names = sorted({**last.products, **last.convolutions})
    kinds = {"product": last.products, "convolution": last.convolutions}
    rows: list[tuple[Cell, ...]] = []
    for name in names:
        cells = [
            Number(kind[name] / 1e12, "TFLOP/s") if name in kind else "unknown"
            for kind in kinds.values()
        ]
        rows.append((name, *cells))
    beside = []
    if last.bytes_per_s is not None:
        beside.append(f"a copy reads and writes {last.bytes_per_s / 1e9:.4g} GB/s")
    if last.launch_s is not None:
        beside.append(f"a launch costs the host {last.launch_s * 1e6:.3g} µs")
    yield Chart(
        panel=partial(
            panels.bars,
            rows={
                name: [kind[name] / 1e12 if name in kind else None for kind in kinds.values()]
                for name in names
            },
            kinds=list(kinds),
            unit="TFLOP/s",
        ),
        title="Ceilings of this device",
        caption="; ".join(["The fastest of several sizes, in this run", *beside]) + ".",
        head=("precision", *kinds),
        rows=rows,
        height_in=height_of_rows_in(2 * len(names)),
    )
