"""docs/runs/sabotage.json and the page that it renders to: what was planted, and what saw it."""

import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

from sabotage.row import CatalogueRow
from sabotage.unseen import UNSEEN

HEAD = """# Sabotage

Known ways for mixed-precision training to go wrong are planted here, one at a time, in a step
that is right otherwise. The gate that is there for each has to turn red and say why; the healthy
twin has to stay green. `make sabotage` runs all that the machine can run and writes this page; what
it cannot run keeps what another machine recorded.
"""

UNSEEN_HEAD = """
## What no probe sees

A test holds that all probes are green for these; one that turns red belongs into the table above.
Of what is wrong in every precision alike, probes see only what they look for in fp32 too.
"""


class SabotageTrial(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One run of a row on one device.

    Attributes:
        device: "cpu" or "cuda".
        hardware: the device as its vendor spells it.
        torch: the version.
        date: of the run, as in ISO 8601.
        healthy: verdict lines of the twin.
        planted: verdict lines of the bug.
        faults: why the row does not hold; none if the bug is red and the twin green.
    """

    device: str
    hardware: str
    torch: str
    date: str
    healthy: list[str]
    planted: list[str]
    faults: list[str]

    @property
    def outcome(self) -> str:
        """ "red" where the row holds."""
        return "not red" if self.faults else "red"


class SabotageEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A row of the catalogue, with the latest trial on each device."""

    number: int
    plant: str
    gates: list[str]
    needs_cuda: bool
    trials: list[SabotageTrial] = []


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that is recorded.

    Attributes:
        entries: one a row, in the catalogue's order.
    """

    entries: list[SabotageEntry]


def read(path: Path) -> Record:
    """Return what was recorded, nothing if there is no file.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Record)
    except FileNotFoundError:
        return Record(entries=[])


def merge(
    before: Record, rows: Iterable[CatalogueRow], trials: dict[str, list[SabotageTrial]]
) -> Record:
    """Return the record of these rows.

    `trials` are new ones by plant; each takes the place of an earlier one on its device, and
    earlier ones on other devices stay. A row that is no longer in the catalogue is dropped.
    """
    known = {entry.plant: entry.trials for entry in before.entries}
    entries = []
    for row in rows:
        new = trials.get(row.plant, [])
        done = {trial.device for trial in new}
        kept = [trial for trial in known.get(row.plant, []) if trial.device not in done]
        entries.append(
            SabotageEntry(
                number=row.number,
                plant=row.plant,
                gates=list(row.gates),
                needs_cuda=row.needs_cuda,
                trials=sorted([*kept, *new], key=lambda trial: trial.device),
            )
        )
    return Record(entries=entries)


def render(record: Record) -> str:
    """Return the page."""
    lines = [
        HEAD,
        "| # | planted | gates | the line that it turned red with | device | last run |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for entry in record.entries:
        start = f"| {entry.number} | {_cell(entry.plant)} | {_cell(', '.join(entry.gates))} |"
        if not entry.trials:
            device = "cuda" if entry.needs_cuda else "cpu"
            lines.append(f"{start} | {device} | never run |")
        for trial in entry.trials:
            said = trial.faults or [line for line in trial.planted if line.startswith("FAIL ")]
            told = "<br>".join(map(_cell, said))
            if trial.faults:
                told = f"**not red**: {told}"
            where = f"{trial.hardware}, torch {trial.torch}, {trial.date}"
            lines.append(f"{start} {told} | {trial.device} | {_cell(where)} |")
    lines += [UNSEEN_HEAD, "| planted | why no probe sees it |", "| --- | --- |"]
    lines += [f"| {_cell(each.plant)} | {_cell(each.why)} |" for each in UNSEEN]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """Return text that neither ends a cell of a table nor is taken for HTML or for a link."""
    return text.replace("|", "\\|").replace("[", "&#91;").replace("<", "&lt;").replace("\n", " ")


def write(path: Path, text: str) -> None:
    """Write the file as a whole, or leave what is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def encode(record: Record) -> str:
    """Return the record as JSON that a diff can be read of."""
    return msgspec.json.format(msgspec.json.encode(record), indent=1).decode() + "\n"
