"""Charts of ranks: the time of each in a row, of very many how they lie, and how they scale."""

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from statistics import median, quantiles

from perfsuite.judging.blocks import Block, RanksInShort
from perfsuite.records.schema import Benchmark
from perfsuite.records.wording import counted, short_name
from perfsuite.report import panels
from perfsuite.report.chart import Cell, Chart, Number, height_of_rows_in
from perfsuite.report.raw_figures import Timing, scalings


def times_of_ranks(timing: Timing) -> Iterator[Chart]:
    """Show the seconds of each rank, or how they lie where a run has too many for that; by arm."""
    for arm in timing.arms:
        name = timing.name if len(timing.arms) == 1 else f"{timing.name}: {arm}"
        blocks = [b for of, b in timing.blocks if of == arm and not b.throttled]
        if rows_s := _of_as_many(blocks):
            yield _row_of_ranks(name, rows_s)
        elif in_short := [block.in_short for block in blocks if block.in_short is not None]:
            yield _ranks_by_block(name, in_short)


def scaling_of_ranks(benchmarks: Sequence[Benchmark]) -> Iterator[Chart]:
    """Show what all ranks do beside one alone, as a share of the ideal."""
    drawn: list[tuple[str, float, float, float]] = []
    rows: list[tuple[Cell, ...]] = []
    for key, found in [(each.key, found) for each in benchmarks for found in scalings(each)]:
        name = f"{short_name(key)}: {found.how}"
        known = found.efficiency, found.low, found.high
        if None in known or found.alone_s is None or found.step_s is None:
            rows.append((name, Number(found.ranks), *["unknown"] * 5, found.why_not))
            continue
        value, low, high = (each for each in known if each is not None)
        drawn.append((name, value, low, high))
        times = Number(found.alone_s, "s"), Number(found.step_s, "s")
        shares = (Number(each) for each in (value, low, high))
        rows.append((name, Number(found.ranks), *times, *shares, ""))
    if drawn:
        yield Chart(
            panel=partial(panels.scaling, rows=drawn),
            title="Scaling",
            caption="What all ranks do in a second, over what one alone does and as many times as"
            " there are ranks: 1 is ideal. Weak: each rank has as large a batch as one alone;"
            " strong: all together. With its interval.",
            head=("way", "ranks", "one alone", "all ranks", "efficiency", "low", "high", "why"),
            rows=rows,
            height_in=height_of_rows_in(len(drawn)),
        )


def _of_as_many(blocks: Sequence[Block]) -> list[tuple[float, ...]]:
    """Return each rank's seconds by block; nothing where not all blocks are of as many ranks."""
    rows_s = [block.ranks_s for block in blocks]
    return rows_s if len({len(each) for each in rows_s}) == 1 and rows_s[0] else []


def _row_of_ranks(name: str, rows_s: Sequence[tuple[float, ...]]) -> Chart:
    found = [_middle(own_s) for own_s in zip(*rows_s, strict=True)]
    medians_s = [middle_s for _, middle_s, _ in found]
    slowest = medians_s.index(max(medians_s))
    beside = [
        _beside(own_s, medians_s[:rank] + medians_s[rank + 1 :])
        for rank, own_s in enumerate(medians_s)
    ]
    return Chart(
        panel=partial(
            panels.row_of_ranks,
            ranks=[(low_s * 1e3, own_s * 1e3, high_s * 1e3) for low_s, own_s, high_s in found],
            slowest=(slowest, f"slowest: rank {slowest}, {beside[slowest]}"),
        ),
        title=f"{name}: a row of ranks",
        caption=f"Median of each rank over {counted(len(rows_s), 'block')}, and the middle half of"
        " them as a line. The slowest rank is a triangle with its number; how much longer it takes"
        " is beside the median of the others. Where ranks wait for each other in each step, all"
        " take as long as the slowest.",
        head=("rank", "median", "quarter below", "quarter above", "beside the others"),
        rows=[
            (
                f"{rank} (slowest)" if rank == slowest else f"{rank}",
                *(Number(each_s, "s") for each_s in (own_s, low_s, high_s)),
                beside[rank],
            )
            for rank, (low_s, own_s, high_s) in enumerate(found)
        ],
    )


def _beside(own_s: float, others_s: Sequence[float]) -> str:
    """Return how much longer a rank takes than the median of the others."""
    middle_s = median(others_s)
    return f"{own_s / middle_s - 1:+.1%}" if middle_s else "unknown"


def _middle(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the lower quartile, the median and the upper quartile."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = quantiles(values, n=4, method="inclusive")
    return low, middle, high


def _ranks_by_block(name: str, blocks: Sequence[RanksInShort]) -> Chart:
    slowest = Counter(each.slowest for each in blocks)
    rank, times = slowest.most_common(1)[0]
    often = f"rank {rank} in {times} of {counted(len(blocks), 'block')}"
    parts_s = {
        "lowest rank": [each.lowest_s for each in blocks],
        "median rank": [each.median_s for each in blocks],
        "slowest rank": [each.highest_s for each in blocks],
    }
    rows: list[tuple[Cell, ...]] = [("most often the slowest", often, "", "")]
    for part, each_s in parts_s.items():
        rows.append((part, *(Number(f(each_s), "s") for f in (min, median, max))))
    return Chart(
        panel=partial(
            panels.ranks_by_block,
            blocks=[(b.lowest_s * 1e3, b.median_s * 1e3, b.highest_s * 1e3) for b in blocks],
        ),
        title=f"{name}: {blocks[0].ranks} ranks",
        caption="Block by block the lowest, the median and the highest time of all ranks, which is"
        f" all that a run keeps of so many. Most often the slowest: {often}.",
        head=("of all ranks", "fastest block", "median", "slowest block"),
        rows=rows,
    )
