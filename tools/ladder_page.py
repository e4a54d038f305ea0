"""Write docs/ladder.md: ``python tools/ladder_page.py RUN.json docs``, with a run of the ladder.

The run is kept in docs/runs, in place of an older one of the same machine, and the page has a
section for each machine of which there is one. Without a run it is written again from those.
"""

import sys
from pathlib import Path

from perfsuite.judging.gains import MOST_APART, MOST_UNCHANGED
from perfsuite.judging.top_rung import rungs_kept
from perfsuite.measuring.climbing import CHECKED_STEPS, READY_S, STEP_S
from perfsuite.records.operators import Profile, products_s
from perfsuite.records.schema import Benchmark, Run, RunError, read_run
from perfsuite.records.wording import quantity
from perfsuite.report.chart import Chart
from perfsuite.report.lever_charts import levers_tried
from perfsuite.report.raw_figures import convolutions, levers
from perfsuite.report.svg import draw

NAMED = 8
"""Operators of a profile that are shown by name."""
HEAD = f"""# The ladder

How near is the tutorial's step to what a machine can do? The ladder begins with the tutorial's own
loop, as its text has it: a DataLoader with ToTensor, a copy of each batch, plain Adam, the loss
read in each step. Each rung pulls one lever more. Neighbours take turns, so that what slows the
machine slows both, until the gain is clear or the budget is spent: *no change* lies within
{MOST_UNCHANGED:.0%} of 1 for sure. Each rung has to leave the first loss and the mean loss of
{CHECKED_STEPS} steps as they are, without dropout and within the margin of `[convergence]`, and to
move the weights as far, within {MOST_APART:.0%}; those of a batch of another size, and what
rounding alone does to the step, are only told. A lever that makes the step slower is told, with
the operators that did it, and is taken off again; only mixed precision stays, since it is what the
ladder is about. What is not ready after {READY_S:.0f} s, as a compiler may not be, or finds no
memory, is left out, and says so.
`cudnn.benchmark` is set late: cuDNN has chosen its algorithms by then, and keeps them.

The share of ceiling is [measured in the same run](method.md#ceilings). A batch is halved until a
step takes no longer than {STEP_S:g} s. Memory is the device's peak, or on a CPU what the forward
pass keeps for the backward pass. `make ladder` climbs it on your machine and writes this page.

fp32 is IEEE arithmetic here. PyTorch's own default takes TF32 in convolutions on NVIDIA GPUs since
Ampere, so that the text's own loop is faster there than the first rung, and mixed precision gains
less over it than is told here.

`perfsuite advise-step` tries the same levers on *your* training, precision and memory format first,
and the others each beside the fastest of those:
[which levers help](own-training.md#which-levers-help).
"""
EMPTY = "\nNo run of it is kept yet.\n"


def ladder_of(run: Run) -> tuple[Benchmark, Chart]:
    """Return a run's ladder and its chart; RunError if it has none."""
    found = [
        (benchmark, chart)
        for key, benchmark in run.benchmarks.items()
        if "test_ladder" in key
        for chart in levers_tried(benchmark)
    ]
    if not found:
        raise RunError(f"{run.path}: it has no ladder; run pytest benchmarks/test_ladder.py")
    return found[0]


def how_high(benchmark: Benchmark) -> list[str]:
    """Return lines on the top rung: how near the ceiling it is, and how far above the text's own.

    Of what a run did not keep it says nothing.
    """
    tried, profile = levers(benchmark), benchmark.operators
    top = rungs_kept(tried)[-1]
    told = []
    if (share := top.share_of_ceiling) is not None:
        told.append(f"{share:.1%} of the ceiling in the whole step")
    if profile is not None and (part_of_it := products_s(profile) / profile.total_s):
        part = f"{part_of_it:.0%} of its time in products"
        # Both by the profile, whose step may take another time than the one that was timed.
        if share is not None and share <= part_of_it:
            part += f", at {share / part_of_it:.1%} of the ceiling"
        told.append(part)
    amp = tried[1] if len(tried) > 1 else top
    if top is not amp and top.samples_per_s is not None and amp.samples_per_s is not None:
        gain = top.samples_per_s / amp.samples_per_s
        told.append(f"{gain:.2f} times as fast as *{amp.name}* alone")
    alone = [
        f"- `{each.operator}` of {' and '.join('x'.join(map(str, s)) for s in each.shapes)}:"
        f" {each.flop_per_s / 1e12:.4g} TFLOP/s, {each.share_of_ceiling:.1%} of the ceiling"
        for each in convolutions(benchmark)
        if each.share_of_ceiling is not None
    ]
    first = f"The top rung is *{top.name}*" + f": {'; '.join(told)}" * bool(told) + "."
    head = ["Its largest convolutions, each timed by itself:", ""]
    return [first, "", *[*head, *alone, ""] * bool(alone)]


def what_holds(profile: Profile) -> list[str]:
    """Return lines that say where the time of the top rung's step goes."""
    ranked = sorted(profile.operators.items(), key=lambda item: -item[1].self_s)
    times_s = {f"`{name}`": each.self_s for name, each in ranked[:NAMED]}
    times_s["all others"] = profile.rest_s + sum(each.self_s for _, each in ranked[NAMED:])
    times_s[profile.outside] = profile.outside_s
    rows = (
        f"| {name} | {quantity(taken_s, 's')} | {taken_s / profile.total_s:.1%} |"
        for name, taken_s in times_s.items()
    )
    head = ["What holds it, by a profile of its step:", "", "| operator | time a step | share |"]
    return [*head, "| --- | --- | --- |", *rows, ""]


def section(run: Run, benchmark: Benchmark, chart: Chart, picture: str) -> str:
    """Return a machine's section."""
    said = "; **simulated: nothing was measured**" * run.simulated
    lines = [
        f"## {run.hardware_name}",
        "",
        f"`{run.hardware}`, torch {run.software.get('torch')}, {run.started[:10]}{said}.",
        "",
        f"![Samples a second on each rung, on {run.hardware_name}]({picture})",
        "",
        f"| {' | '.join(chart.head)} |",
        f"|{' --- |' * len(chart.head)}",
        *(f"| {' | '.join(str(cell).replace('|', '/') for cell in row)} |" for row in chart.rows),
        "",
        *how_high(benchmark),
        *([] if benchmark.operators is None else what_holds(benchmark.operators)),
    ]
    return "\n".join(["", *lines])


def write_page(docs: Path) -> None:
    """Write the page and its pictures from the runs in docs/runs; RunError if one has no ladder."""
    text = HEAD
    paths = sorted((docs / "runs").glob("ladder-*.json"))
    for path in paths:
        run = read_run(path)
        benchmark, chart = ladder_of(run)
        picture = f"ladder-{run.hardware}.svg"
        drawn = draw([chart.panel], width_in=9.0, panel_in=chart.height_in, salt=run.hardware)
        (docs / picture).write_bytes(drawn)
        text += section(run, benchmark, chart, picture)
    (docs / "ladder.md").write_text(text if paths else text + EMPTY, encoding="utf-8")


def main(arguments: list[str]) -> int:
    """Write the page; return 0, or 1 after what was wrong."""
    *runs, docs = map(Path, arguments)
    try:
        for path in runs:
            run = read_run(path)
            ladder_of(run)
            (docs / "runs" / f"ladder-{run.hardware}.json").write_bytes(path.read_bytes())
        write_page(docs)
    except (OSError, RunError) as error:
        print(f"ladder_page: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
