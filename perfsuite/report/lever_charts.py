"""Charts of levers: what each of them gained, or why it was left out."""

from collections.abc import Iterator
from functools import partial

from perfsuite.judging.gains import LeverTried, told_gain
from perfsuite.records.schema import Benchmark
from perfsuite.records.wording import short_name
from perfsuite.report import panels
from perfsuite.report.chart import Cell, Chart, Number, height_of_rows_in
from perfsuite.report.raw_figures import levers

HEAD = (
    "lever",
    "samples a second",
    "gain",
    "beside",
    "share of ceiling",
    "memory",
    "bound by",
    "losses apart by",
    "operators",
)


def levers_tried(benchmark: Benchmark) -> Iterator[Chart]:
    """Show samples a second with each lever, in the order in which they were tried."""
    tried = levers(benchmark)
    rates = {each.name: [each.samples_per_s] for each in tried if each.samples_per_s is not None}
    if not rates:
        return
    yield Chart(
        panel=partial(panels.bars, rows=rates, kinds=["step"], unit="samples a second"),
        title=f"{short_name(benchmark.key)}: levers",
        caption="Samples a second by the median of its blocks. The gain is that of blocks in turns"
        " with the step named beside it, with its interval.",
        head=HEAD,
        rows=[_row(each) for each in tried],
        height_in=height_of_rows_in(len(rates)),
    )


def _row(tried: LeverTried) -> tuple[Cell, ...]:
    if tried.samples_per_s is None:
        return (tried.name, "left out", tried.left_out, tried.against, *[""] * 5)
    share, memory = tried.share_of_ceiling, tried.memory_bytes
    return (
        tried.name,
        Number(tried.samples_per_s),
        "" if tried.gain is None else told_gain(tried.gain),
        tried.against,
        "" if share is None else f"{share:.1%}",
        "" if memory is None else Number(memory, "B"),
        tried.bound,
        tried.loss_apart,
        "; ".join(tried.slower_by),
    )
