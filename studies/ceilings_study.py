"""Do ceilings repeat? Measured in fresh processes: ``python studies/ceilings_study.py``.

On a machine that does nothing else, in a minute. Writes docs/studies/ceilings-HARDWARE.json,
and tells of each ceiling how far its measurements lie apart; it fails if that is more than MOST.
"""

import argparse
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec

from perfsuite.judging.ceilings import Ceilings
from perfsuite.measuring.ceiling_search import measure_ceilings
from perfsuite.measuring.machine import machine

PROCESSES = 5
MOST = 0.05
"""By which the highest of them may lie above the lowest, as a share."""
STUDIES = Path(__file__).parents[1] / "docs" / "studies"


def apart(runs: list[Ceilings]) -> dict[str, float]:
    """Return by which share the highest measurement of each ceiling lies above the lowest.

    Raises:
        ValueError: one of them could not be measured.
    """
    figures: dict[str, list[float]] = {}
    for run in runs:
        if run.unmeasured:
            name, why = next(iter(run.unmeasured.items()))
            raise ValueError(f"{name} could not be measured: {why}")
        found = {f"{name} product": rate for name, rate in run.products.items()}
        found |= {f"{name} convolution": rate for name, rate in run.convolutions.items()}
        found |= {"copy": run.bytes_per_s or 0.0, "launch": run.launch_s or 0.0}
        for name, figure in found.items():
            figures.setdefault(name, []).append(figure)
    return {name: max(each) / min(each) - 1 for name, each in figures.items()}


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
        print(msgspec.json.encode(asdict(measure_ceilings(here.device))).decode())
        return 0
    runs = [in_fresh_process(given.device) for _ in range(PROCESSES)]
    far = apart(runs)
    study: dict[str, Any] = {
        "hardware": here.hardware.name,
        "count": here.hardware.count,
        "software": here.software,
        "apart": far,
        "runs": [asdict(run) for run in runs],
    }
    path = STUDIES / f"ceilings-{here.hardware.key}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(study), indent=1) + b"\n")
    for name, share in far.items():
        print(f"{name}: {share:.1%} apart in {PROCESSES} processes{', too far' * (share > MOST)}")
    return int(max(far.values()) > MOST)


if __name__ == "__main__":
    sys.exit(main())
