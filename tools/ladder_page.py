"""Write docs/ladder.md: ``python tools/ladder_page.py RUN.json docs``, with a run of the ladder.

The run is kept in docs/runs, in place of an older one of the same machine, and the page has a
section for each machine of which there is one. Without a run it is written again from those.
"""

import sys
from pathlib import Path

from perfsuite.measuring.climbing import CHECKED_STEPS, READY_S, STEP_S
from perfsuite.records.schema import Run, RunError, read_run
from perfsuite.report.chart import Chart
from perfsuite.report.lever_charts import levers_tried
from perfsuite.report.svg import draw

HEAD = f"""# The ladder

How near is the tutorial's step to what a machine can do? The ladder begins with the tutorial's own
loop, as its text has it: a DataLoader with ToTensor, a copy of each batch, plain Adam, the loss
read in each step. Each rung pulls one lever more. Neighbours take turns, so that what slows the
machine slows both. Each rung has to leave the first loss and the mean loss of {CHECKED_STEPS} steps
as they are, without dropout and within the margin of `[convergence]`; those of a batch of another
size are only told. A lever that makes the step
slower is told, with the operators that did it, and is taken off again; only mixed precision stays,
since it is what the ladder is about. What is not ready after {READY_S:.0f} s, as a compiler may not
be, is left out, and says so.

The share of ceiling is [measured in the same run](method.md#ceilings). A batch is halved until a
step takes no longer than {STEP_S:g} s. Memory is the device's peak, or on a CPU what the forward
pass keeps for the backward pass. `make ladder` climbs it on your machine and writes this page.

`perfsuite advise-step` tries the same levers on *your* training, each beside the step as it is:
[which levers help](own-training.md#which-levers-help).
"""
EMPTY = "\nNo run of it is kept yet.\n"


def ladder_of(run: Run) -> Chart:
    """Return the chart of a run's ladder; RunError if it has none."""
    charts = [
        chart
        for key, benchmark in run.benchmarks.items()
        if "test_ladder" in key
        for chart in levers_tried(benchmark)
    ]
    if not charts:
        raise RunError(f"{run.path}: it has no ladder; run pytest benchmarks/test_ladder.py")
    return charts[0]


def section(run: Run, chart: Chart, picture: str) -> str:
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
    ]
    return "\n".join(["", *lines, ""])


def write_page(docs: Path) -> None:
    """Write the page and its pictures from the runs in docs/runs; RunError if one has no ladder."""
    text = HEAD
    paths = sorted((docs / "runs").glob("ladder-*.json"))
    for path in paths:
        run = read_run(path)
        chart = ladder_of(run)
        picture = f"ladder-{run.hardware}.svg"
        drawn = draw([chart.panel], width_in=9.0, panel_in=chart.height_in, salt=run.hardware)
        (docs / picture).write_bytes(drawn)
        text += section(run, chart, picture)
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
