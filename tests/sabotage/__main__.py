"""Run every row that this machine can run: ``cd tests && python -m sabotage``.

Writes docs/runs/sabotage.json and docs/sabotage.md. Exits 1 if any bug was not red for its
reason, or a healthy twin not green.
"""

import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import torch

from perfsuite.devices.choice import device_of
from sabotage.catalogue import ROWS
from sabotage.record import SabotageTrial, encode, merge, read, render, write
from sabotage.row import CatalogueRow, not_green, not_red

DOCS = Path(__file__).resolve().parents[2] / "docs"


def devices(row: CatalogueRow) -> list[torch.device]:
    """Return the devices of this machine that the row runs on."""
    names = [] if row.needs_cuda else ["cpu"]
    return [torch.device(name) for name in [*names, *["cuda"] * torch.cuda.is_available()]]


def attempt(row: CatalogueRow, device: torch.device) -> SabotageTrial:
    """Run both sides of a row; what it raises in spite of all is a fault of the row."""
    sides = []
    try:
        sides = [row.healthy(device), row.planted(device)]
        faults = not_green(row, sides[0]) + not_red(row, sides[1])
    except Exception as error:
        faults = [f"raised {type(error).__name__}: {str(error).partition(chr(10))[0]}"]
    healthy, planted = [list(map(str, side)) for side in sides] or ([], [])
    return SabotageTrial(
        device=device.type,
        hardware=device_of(device).hardware().name,
        torch=str(torch.__version__),
        date=datetime.now(UTC).date().isoformat(),
        healthy=healthy,
        planted=planted,
        faults=faults,
    )


def main(docs: Path = DOCS, rows: Iterable[CatalogueRow] = ROWS) -> int:
    """Run the rows, record them below `docs`, and return the exit status."""
    # The models are small: a second thread costs more than it brings.
    torch.set_num_threads(1)
    rows = list(rows)
    path = docs / "runs" / "sabotage.json"
    try:
        before = read(path)
    except ValueError as error:
        print(f"sabotage: {path}: cannot be read: {error}; restore it", file=sys.stderr)
        return 1
    trials = {}
    for row in rows:
        trials[row.plant] = [attempt(row, device) for device in devices(row)]
        for trial in trials[row.plant]:
            print(f"{trial.outcome:7}  {trial.device:4}  {row.number:2} {row.plant}", flush=True)
            for fault in trial.faults:
                print(f"         {fault}", file=sys.stderr)
    record = merge(before, rows, trials)
    write(path, encode(record))
    write(docs / "sabotage.md", render(record))
    return int(any(trial.faults for new in trials.values() for trial in new))


if __name__ == "__main__":
    sys.exit(main())
