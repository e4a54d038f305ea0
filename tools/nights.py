"""Nights: what came of each, and the history that they are kept in.

A history has a folder for each hardware, in it one for each leg (the PyTorch that was asked for),
and in that a run file for each night. Needs no PyTorch.
"""

import re
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec

from perfsuite.records.files import write_new
from perfsuite.records.schema import Run, RunError, read_run

MOST_PAST = 200
"""Runs of a folder that a report is given, the newest: each is read whole."""
NEWEST = "newest"
"""The leg of whatever PyTorch is installed."""
TORCH = re.compile(r"[0-9]+(\.[0-9]+){0,2}(\.\*)?", re.ASCII)


class NightlyError(ValueError):
    """What was asked for and cannot be done; the message is one line."""


class NightOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a night on one machine.

    Attributes:
        exit_code: that the gate ends with: pytest's own, but never 0 if it is not green.
        verdict: "broken" is a night on which a gate may not have been evaluated.
        reason: of "broken", or what else went wrong; "" without.
        hardware: key; None without a run.
        torch: its version.
        commit: that was measured.
        leg: which PyTorch was asked for: "newest", or a version.
        runner: name of the machine, None where there is no telling.
        failed: keys of the benchmarks that did not pass.
    """

    exit_code: int
    verdict: Literal["green", "red", "broken"]
    reason: str
    hardware: str | None
    torch: str | None
    commit: str | None
    leg: str
    runner: str | None
    failed: list[str]


def leg_of(torch: str) -> str:
    """Return what the nights of a PyTorch are kept under, apart from those of another.

    The newest are one series, whichever release it is: that is where an upgrade shows.

    Raises:
        NightlyError: it is no version.
    """
    if torch and not TORCH.fullmatch(torch):
        raise NightlyError(f"torch {torch!r} is no version such as 2.14.1 or 2.14.*")
    return torch or NEWEST


def past_runs(folder: Path, now: Run) -> Iterator[Path]:
    """Yield the newest runs in a folder that can stand beside `now`; say what is skipped."""
    files = sorted(folder.glob("*.json"))  # named by the time they were started
    if len(files) > MOST_PAST:
        print(f"nightly: of {len(files)} past runs the report has the newest {MOST_PAST}")
    for path in files[-MOST_PAST:]:
        try:
            run = read_run(path)
        except RunError as error:
            print(f"nightly: skipped: {error}", file=sys.stderr)
            continue
        # The report is about the newest run that it is given, which has to be tonight's.
        if run.hardware != now.hardware or run.against is not None or run.started >= now.started:
            print(f"nightly: skipped: {path}: no earlier run of this suite", file=sys.stderr)
            continue
        yield path


def append(folder: Path, outs: Sequence[Path]) -> None:
    """Add the runs of nights to a history, those of broken ones left out.

    Red ones are added too: a history without them would not show the step.

    Raises:
        NightlyError: an entry of `outs` is no folder, or another run has the name already.
        OSError: something could not be written.
    """
    for out in outs:
        if not out.is_dir():
            raise NightlyError(f"{out} is no folder")
    for out in outs:
        try:
            run, leg, name = _named(out)
        except (NightlyError, RunError) as error:
            print(f"nightly: not appended: {error}")
            continue
        target = folder / run.hardware / leg / name
        try:
            write_new(target, run.content)
        except FileExistsError:
            if target.read_bytes() != run.content:
                raise NightlyError(f"{target} is another run, and is not overwritten") from None
            print(f"nightly: {target} is there already")
        else:
            print(f"nightly: appended {target}")


def _named(out: Path) -> tuple[Run, str, str]:
    """Return the run in a folder that a gate wrote, its leg, and its name in a history."""
    try:
        outcome = msgspec.json.decode((out / "outcome.json").read_bytes(), type=NightOutcome)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise NightlyError(f"{out}: its outcome cannot be read: {error}") from None
    if outcome.verdict == "broken":
        raise NightlyError(f"{out}: a broken night: {outcome.reason}")
    run = read_run(out / "run.json")
    if not run.complete:
        raise NightlyError(f"{out}: the session did not run to its end")
    try:
        started = datetime.fromisoformat(run.started).astimezone(UTC)
    except ValueError as error:
        raise NightlyError(f"{run.path}: {error}") from None
    # What a run says of itself names a file here: nothing of it may lead elsewhere.
    if outcome.leg != NEWEST and not TORCH.fullmatch(outcome.leg):
        raise NightlyError(f"{out}: torch {outcome.leg!r} is no version")
    parts = [f"{started:%Y%m%dT%H%M%SZ}", run.commit[:12], f"torch{run.software.get('torch')}"]
    if outcome.runner:
        parts.append(outcome.runner)
    return (
        run,
        outcome.leg,
        "-".join(re.sub(r"[^A-Za-z0-9.]+", "_", part) for part in parts) + ".json",
    )
