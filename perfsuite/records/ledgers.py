"""Accepted ledgers: a TOML file for each minor version of torch and kind of device.

A count a line, sorted, so that the diff of a pull request shows what a change costs. Where the
counts came from stands in a second file, which no verdict depends on.
"""

import json
import re
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import msgspec

from perfsuite.judging.counts import GATE, Ledger, judge
from perfsuite.judging.gates import Verdict, not_gated
from perfsuite.records.files import replace_all
from perfsuite.records.schema import Benchmark, Run, read_run

FOLDER = "ledgers"
RAW = "ledger"
"""The name by which a benchmark keeps its ledger."""
ACCEPT = "perfsuite accept"
_HEAD = """\
# What a training step does, counted. Written by `perfsuite accept`; a benchmark that counts
# anything else is red, also where it became less. Remove the tables of one that is gone.
"""


class LedgerError(ValueError):
    """An accepted ledger that cannot be used, or a run that has none to be accepted."""


class _AcceptedCounts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    about: dict[str, str]
    counts: dict[str, Annotated[int, msgspec.Meta(ge=0)]]
    unsteady: list[str] = []


class _LedgerFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    torch: str
    device: str
    benchmark: dict[str, _AcceptedCounts]


@dataclass(frozen=True, kw_only=True)
class AcceptedLedgers:
    """What was accepted for one version of torch on one kind of device; nothing without a file."""

    path: Path
    torch: str  # major and minor
    device: str  # its kind
    ledgers: Mapping[str, Ledger] = field(default_factory=dict)  # by the benchmark's key

    @property
    def shown(self) -> str:
        """The file, as seen from the suite."""
        return f"{FOLDER}/{self.path.name}"

    def judge(self, record: Benchmark) -> tuple[list[Verdict], list[str]]:
        """Judge a benchmark's counts, if it kept any; return what changed too, a line each."""
        counted = ledger_in(record.raw)
        if counted is None:
            return [], []
        accepted = self.ledgers.get(record.key)
        if accepted is None:
            reason = f"none accepted for torch {self.torch} on {self.device}: `{ACCEPT}`"
            return [not_gated(GATE, f"{len(counted.counts)} counts", reason)], []
        verdict, lines = judge(accepted, counted, as_in=f"as accepted in {self.shown}")
        if lines:
            lines.append(f"if that is meant to be so: `{ACCEPT}`, and commit {self.shown}")
        return [verdict], lines

    def gone(self, collected: Collection[str], lacking: Collection[str]) -> list[str]:
        """Return keys that were not collected, but for precisions that the device is lacking."""
        return [
            key
            for key in self.ledgers
            if key not in collected and not {*re.split(r"[\[\]-]", key)}.intersection(lacking)
        ]


def ledger_in(raw: Mapping[str, Any]) -> Ledger | None:
    """Return the ledger among the raw figures of a benchmark."""
    return msgspec.convert(raw[RAW], Ledger) if RAW in raw else None


def minor_of(torch: str) -> str:
    """Return major and minor of a version of torch, such as 2.14 of 2.14.1+cu130."""
    return ".".join(torch.split(".")[:2])


def read_ledgers(suite: Path, *, torch: str, device: str) -> AcceptedLedgers:
    """Return what was accepted in a suite; LedgerError if its file cannot be used."""
    minor = minor_of(torch)
    path = suite / FOLDER / f"{device}-torch-{minor}.toml"
    accepted = AcceptedLedgers(path=path, torch=minor, device=device)
    if not path.exists():
        return accepted
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
        entries = msgspec.convert(document, _LedgerFile).benchmark
        sites = json.loads(_sites(path).read_bytes()) if _sites(path).exists() else {}
        every = {
            key: Ledger(
                about=entry.about,
                counts=entry.counts,
                unsteady=entry.unsteady,
                sites=msgspec.convert(sites.get(key, {}), dict[str, dict[str, int]]),
            )
            for key, entry in entries.items()
        }
    except (OSError, ValueError) as error:  # not UTF-8, not TOML, or not what is written here
        why = " ".join(str(error).split())
        raise LedgerError(
            f"{path}: cannot be read: {why}; restore the file and {_sites(path).name}, or remove"
            f" both and run `{ACCEPT}`"
        ) from None
    return replace(accepted, ledgers=every)


def accept(paths: Sequence[Path], suite: Path) -> list[Path]:
    """Accept the ledgers of runs, of which the last wins; return the files that were written.

    Other benchmarks' ledgers in those files stay.

    Raises:
        LedgerError: a run has no ledger, or is not one that may be accepted.
        RunError: a file is not a valid run.
    """
    found: dict[Path, AcceptedLedgers] = {}
    for path in paths:
        run = read_run(path)
        for key, counted in _countable(run).items():
            device = str(run.benchmarks[key].config["device"])
            accepted = read_ledgers(suite, torch=str(run.software["torch"]), device=device)
            accepted = found.get(accepted.path, accepted)
            ledgers = {**accepted.ledgers, key: counted}
            found[accepted.path] = replace(accepted, ledgers=ledgers)
    contents = {}
    for accepted in found.values():
        contents[accepted.path] = _encoded(accepted).encode()
        sites = {key: each.sites for key, each in accepted.ledgers.items()}
        text = json.dumps(sites, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
        contents[_sites(accepted.path)] = text.encode()
    replace_all(contents)
    return list(found)


def _countable(run: Run) -> dict[str, Ledger]:
    """Return a run's ledgers by benchmark; LedgerError where they must not be accepted."""
    refused = {
        "its device was simulated": run.simulated,
        "it compares two trees": run.against is not None,
        "the session did not run to its end": not run.complete,
    }
    for why, holds in refused.items():
        if holds:
            raise LedgerError(f"{run.path}: refused: {why}")
    found = {
        key: ledger
        for key, record in run.benchmarks.items()
        if (ledger := ledger_in(record.raw)) is not None
    }
    if not found:
        raise LedgerError(
            f"{run.path}: no benchmark of it counts a step: run test_ledger, as `{ACCEPT}` does"
        )
    return found


def _encoded(accepted: AcceptedLedgers) -> str:
    lines = [_HEAD + f"torch = {_text(accepted.torch)}", f"device = {_text(accepted.device)}"]
    for key, ledger in sorted(accepted.ledgers.items()):
        table = f"benchmark.{_text(key)}"
        lines += ["", f"[{table}]"]
        if ledger.unsteady:
            lines.append(f"unsteady = {_text(ledger.unsteady)}")
        about = (f"{_text(name)} = {_text(value)}" for name, value in sorted(ledger.about.items()))
        lines += [f"[{table}.about]", *about]
        counts = (f"{_text(name)} = {number:_}" for name, number in sorted(ledger.counts.items()))
        lines += [f"[{table}.counts]", *counts]
    return "\n".join([*lines, ""])


def _sites(path: Path) -> Path:
    return path.with_suffix(".sites.json")


def _text(value: str | list[str]) -> str:
    return json.dumps(value, ensure_ascii=False)  # of which TOML is a superset
