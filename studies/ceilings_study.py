"""Do ceilings repeat? Measured in fresh processes: ``python studies/ceilings_study.py``.

On a machine that does nothing else, in a minute. Writes docs/studies/ceilings-HARDWARE.json and a
page of it, and tells of each ceiling how far its measurements lie apart; it fails if that is more
than MOST.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from recordings import write_whole

from perfsuite.devices.host import read_host
from perfsuite.judging.ceilings import Ceilings
from perfsuite.measuring.ceiling_search import measure_ceilings
from perfsuite.measuring.machine import machine

PROCESSES = 5
MOST = 0.05
"""By which the highest of them may lie above the lowest, as a share."""
STUDIES = Path(__file__).parents[1] / "docs" / "studies"


class CeilingsStudy(msgspec.Struct, frozen=True, kw_only=True):
    """What each process measured on one machine."""

    hardware: str
    count: int
    software: dict[str, Any]
    load_1min: float | None  # of the machine, before the first
    runs: list[Ceilings]


def by_ceiling(runs: Sequence[Ceilings]) -> dict[str, list[tuple[float, str]]]:
    """Return what each run measured of each ceiling, with its unit.

    Raises:
        ValueError: one of them could not be measured.
    """
    figures: dict[str, list[tuple[float, str]]] = {}
    for run in runs:
        if run.unmeasured:
            name, why = next(iter(run.unmeasured.items()))
            raise ValueError(f"{name} could not be measured: {why}")
        rates = {f"{name} product": rate for name, rate in run.products.items()}
        rates |= {f"{name} convolution": rate for name, rate in run.convolutions.items()}
        found = {name: (rate / 1e12, "TFLOP/s") for name, rate in rates.items()}
        found["copy"] = (run.bytes_per_s or 0.0) / 1e9, "GB/s"
        found["launch"] = (run.launch_s or 0.0) * 1e9, "ns"
        for name, figure in found.items():
            figures.setdefault(name, []).append(figure)
    return figures


def apart(measured: Sequence[tuple[float, str]]) -> float:
    """Return by which share the highest of some measurements lies above the lowest."""
    values = [value for value, _ in measured]
    return max(values) / min(values) - 1


def page(study: CeilingsStudy) -> str:
    """Return the report as Markdown."""
    load = "" if study.load_1min is None else f"; one-minute load {study.load_1min:.1f}"
    lines = [
        "# Do ceilings repeat?",
        "",
        f"{len(study.runs)} fresh processes on {study.count} x {study.hardware}, torch"
        f" {study.software['torch']}{load}. Written by `python studies/ceilings_study.py`.",
        "",
        "Shares of a ceiling are those of the fastest product or convolution in a step's precision,"
        " so these have to repeat. Copies depend on whoever else uses the machine's memory, which a"
        " virtual machine does not see, and no share is given of them or of launches.",
        "",
        f"| ceiling | in each process | apart | within {MOST:.0%} |",
        "| --- | --- | ---: | --- |",
    ]
    for name, measured in by_ceiling(study.runs).items():
        each = ", ".join(f"{value:.3g}" for value, _ in measured)
        far = apart(measured)
        lines.append(
            f"| {name} | {each} {measured[0][1]} | {far:.1%} | {'no' if far > MOST else 'yes'} |"
        )
    return "\n".join([*lines, ""])


def in_fresh_process(device: str) -> Ceilings:
    """Return what a process of its own measures."""
    command = [sys.executable, __file__, "--once", "--device", device]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return msgspec.json.decode(done.stdout, type=Ceilings)


def main(arguments: list[str] | None = None) -> int:
    """Measure, write, and tell; return 0, or 1 if a ceiling does not repeat."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto", help="as --perf-device (default: %(default)s)")
    parser.add_argument("--once", action="store_true", help="measure in this process, and print")
    given = parser.parse_args(arguments)
    here = machine(given.device)
    if given.once:
        print(msgspec.json.encode(measure_ceilings(here.device)).decode())
        return 0
    load_1min = read_host().load_1min
    study = CeilingsStudy(
        hardware=here.hardware.name,
        count=here.hardware.count,
        software=here.software,
        load_1min=load_1min,
        runs=[in_fresh_process(given.device) for _ in range(PROCESSES)],
    )
    path = STUDIES / f"ceilings-{here.hardware.key}.json"
    told = page(study)
    write_whole(path, msgspec.json.format(msgspec.json.encode(study), indent=1))
    write_whole(path.with_suffix(".md"), told.rstrip().encode())
    far = {name: apart(measured) for name, measured in by_ceiling(study.runs).items()}
    for name, share in far.items():
        print(f"{name}: {share:.1%} apart in {PROCESSES} processes{', too far' * (share > MOST)}")
    return int(max(far.values()) > MOST)


if __name__ == "__main__":
    sys.exit(main())
