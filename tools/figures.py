"""Write the figures of a run into README.md: ``python tools/figures.py RUN.json README.md``.

Everything between the two markers is replaced, so that no figure there is ever typed.
"""

import sys
from pathlib import Path

from perfsuite.records.schema import RunError, read_run
from perfsuite.records.wording import short_name

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"


def render(path: Path) -> str:
    """Return the figures of a run as Markdown.

    Raises:
        RunError: the file is not a valid run, or one that failed.
    """
    run = read_run(path)
    if faults := run.faults():
        raise RunError(f"{path}: its figures are not worth showing: {faults[0]}")
    software = run.software
    configs = [each.config for each in run.benchmarks.values() if "samples" in each.config]
    if not configs:
        raise RunError(f"{path}: no benchmark in it takes a step, so that nothing is to be shown")
    config = configs[0]
    lines = [
        BEGIN,
        f"One run on {run.hardware_name}, {run.started[:10]}:"
        f" torch {software['torch']}, Python {software['python']}, workload {config['workload']},"
        f" {config['data']}, batches of {config['samples']}. Intervals are at 99 %"
        " (mean loss: 98 %).",
        "",
        "| benchmark | gate | found | required | verdict |",
        "| --- | --- | --- | --- | --- |",
    ]
    for benchmark in run.benchmarks.values():
        name = short_name(benchmark.key)
        lines += [
            f"| {name} | {v.gate} | {v.figure} | {v.required or v.explanation} | {v.outcome} |"
            for v in benchmark.verdicts
        ]
    return "\n".join([*lines, END])


def replace(readme: str, content: str, *, begin: str = BEGIN, end: str = END) -> str:
    """Return the text with the markers, and what stands between them, replaced.

    Raises:
        ValueError: it does not hold the markers.
    """
    before, found_begin, rest = readme.partition(begin)
    _, found_end, after = rest.partition(end)
    if not found_begin or not found_end:
        raise ValueError(f"no {begin} … {end} to write between")
    return before + content + after


def main(arguments: list[str]) -> int:
    """Rewrite the README; return 0, or 1 after one line that says what was wrong."""
    if len(arguments) != 2:
        print("usage: python tools/figures.py RUN.json README.md", file=sys.stderr)
        return 2
    run, readme = map(Path, arguments)
    try:
        text = replace(readme.read_text(encoding="utf-8"), render(run))
    except (OSError, ValueError) as error:
        print(f"figures: {error}", file=sys.stderr)
        return 1
    readme.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
