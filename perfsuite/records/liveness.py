"""Dead man's switch: has anything been evaluated lately? A gate that never runs is never red."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from perfsuite.judging.counts import GATE as LEDGER
from perfsuite.judging.gates import Outcome
from perfsuite.records.schema import Benchmark, Head, Run, RunError, read_as, read_run
from perfsuite.records.wording import counted

_MOST_AHEAD = timedelta(days=1)
"""A clock may be wrong by hours, and a time without a zone too; a run from later than that would
hold the switch closed for as long as its date lies ahead."""
_COMPARING = ("compare", "against")


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """When something was last evaluated on one hardware.

    Attributes:
        at: None if never.
        later: why each later run does not count, the newest first.
    """

    hardware: str
    at: datetime | None
    later: tuple[str, ...] = ()

    def age_days(self, now: datetime) -> float:
        """Return how long ago it was; infinite if never, and 0 where a clock is ahead."""
        if self.at is None:
            return math.inf
        return max(0.0, (now - self.at) / timedelta(days=1))

    def told(self, now: datetime) -> str:
        """Return it in words."""
        parts = ["never"]
        if self.at is not None:
            parts = [f"last {self.at:%Y-%m-%d %H:%M} UTC, {self.age_days(now):.1f} days ago"]
        if self.later:
            runs = f"{counted(len(self.later), 'later run')} not, the newest"
            parts.append(f"{runs if self.at else 'the newest run'} {self.later[0]}")
        return f"{self.hardware}: {'; '.join(parts)}"


def last_evaluated(
    paths: Iterable[Path], now: datetime, hardware: str | None = None
) -> tuple[list[Evaluated], list[str]]:
    """Return for each hardware when a run last came to a verdict, and what was skipped and why.

    `now` has a time zone; a run's time without one is taken for UTC.
    """
    found: dict[str, list[tuple[datetime, Path]]] = {}
    skipped = []
    for path in paths:
        try:
            head, _ = read_as(path, Head)
            started = _time(head.perfsuite.started, path)
        except RunError as error:
            skipped.append(str(error))
            continue
        key = head.perfsuite.hardware.key
        if hardware not in (None, key):
            continue
        if started > now + _MOST_AHEAD:
            skipped.append(f"{path}: is of {started:%Y-%m-%d}, which is yet to come")
            continue
        found.setdefault(key, []).append((started, path))
    return [_last(key, sorted(runs, reverse=True)) for key, runs in sorted(found.items())], skipped


def _time(started: str, path: Path) -> datetime:
    try:
        time = datetime.fromisoformat(started)
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise RunError(f"{path}: was started at {started!r}, which is no time") from None


def _last(hardware: str, newest_first: Sequence[tuple[datetime, Path]]) -> Evaluated:
    later: list[str] = []
    for started, path in newest_first:
        try:
            why_not = _why_not(read_run(path))
        except RunError as error:
            why_not = f"cannot be used: {error}"
        if why_not is None:
            return Evaluated(hardware=hardware, at=started, later=tuple(later))
        later.append(f"({path.name}) {why_not}")
    return Evaluated(hardware=hardware, at=None, later=tuple(later))


def _why_not(run: Run) -> str | None:
    """Return why a run evaluated nothing, None if it did.

    Where it compared, at least one comparison has to have an answer: what else was judged beside
    it is no regression test. Nor are bytes and counts where times were compared: they repeat, and
    pass on the noisiest machine.
    """
    if not run.complete:
        return "did not run to its end"
    verdicts = [
        (one, each.gate, each.outcome)
        for one in run.benchmarks.values()
        for each in one.verdicts
        if each.gate != "throttling"  # of no figure
    ]
    comparing = [each for each in verdicts if each[1].partition(" ")[0] in _COMPARING]
    sampled = [each for each in comparing if not _is_counted(each[0], each[1])]
    outcomes = {outcome for _, _, outcome in sampled or comparing or verdicts}
    if outcomes & {Outcome.PASS, Outcome.FAIL}:
        return None
    said = sorted(outcome.value for outcome in outcomes)
    return f"came to no verdict ({', '.join(said) or 'nothing was judged'})"


def _is_counted(benchmark: Benchmark, gate: str) -> bool:
    """Tell whether what a gate compares is counted, and does not scatter."""
    name = gate.partition(" ")[2]
    metric = benchmark.metrics.get(name)
    return name == LEDGER or (metric is not None and metric.unit == "B")


def why_stale(
    evaluated: Sequence[Evaluated], skipped: Sequence[str], now: datetime, max_age_days: float
) -> str | None:
    """Return what has not been evaluated for so many days, in a line; None if all was."""
    why = [each.told(now) for each in evaluated if not each.age_days(now) <= max_age_days]
    if not evaluated:
        why = ["there is no run"]
        if skipped:
            why = [f"no run can be read; {counted(len(skipped), 'file')}, such as {skipped[0]}"]
    if not why:
        return None
    return f"nothing was evaluated in the last {max_age_days:g} days: {'; '.join(why)}"
