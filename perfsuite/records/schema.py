"""Run files: one session's JSON, as pytest-benchmark writes it with a section of our own.

Read with every field checked.
"""

from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

import msgspec

from perfsuite.judging.gates import Outcome, Verdict
from perfsuite.judging.hardware import current_key
from perfsuite.judging.thresholds import SIMULATED_KEY
from perfsuite.records.operators import Profile

REPORT_FILES = ("report.html", "report.md")
"""What a report is made of."""
SCHEMA = 1
"""Version of the section ``perfsuite``; raised when its meaning changes."""
NO_BENCHMARK = "holds no benchmark of perfsuite"
NOT_OF_ONE_TREE = "compares two trees, and is not a run of one"


RecordT = TypeVar("RecordT")
HeadT = TypeVar("HeadT", bound="Head")


class RunError(ValueError):
    """A run file that cannot be used; the message names the file and the reason."""


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """One figure that a baseline is compared by."""

    value: Annotated[float, msgspec.Meta(gt=0)]
    unit: str
    better: Literal["lower", "higher"]


class Confirmation(msgspec.Struct, frozen=True, kw_only=True):
    """How a suspicion was looked into, by pairs of processes."""

    suspected: list[Verdict]  # what the comparison with the promoted runs said
    took_s: float = 0.0
    why_not: str = ""  # why it could not be confirmed, and the suspicions stand
    turns: dict[str, Any] = {}  # of the promoted commit and the working tree, as in `against`


class Benchmark(msgspec.Struct, frozen=True, kw_only=True):
    """What one benchmark left for comparison.

    Attributes:
        key: ``file::name[params]``, the file relative to the suite, so that it does not depend on
            where pytest was started.
    """

    key: str
    config: dict[str, Any]  # what was measured; figures of different configs are not compared
    metrics: dict[str, Metric]
    verdicts: list[Verdict]
    markers: list[str] = []
    operators: Profile | None = None  # where the time of its step goes, None if it was not profiled
    state: dict[str, dict[str, Any]] = {}  # of the machine, "before" and "after" it
    contamination: list[str] = []  # why its figures are not comparable, a line each
    reasons: list[str] = []  # why compared figures may have moved, a line each
    arms: dict[str, Any] = {}  # what was timed, by name, and how it warmed up
    raw: dict[str, Any] = {}  # whatever else it kept, by name (see `perfsuite.report.raw_figures`)
    against: dict[str, Any] | None = None  # the turns of two trees, where two were compared
    confirmation: Confirmation | None = None  # where the comparison with a baseline suspected it


class _HardwareRecord(msgspec.Struct, frozen=True, kw_only=True):
    key: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]  # names a folder
    name: str
    count: int = 1

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "key", current_key(self.key))


class _Commit(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    dirty: bool


class _HeadSection(msgspec.Struct, frozen=True, kw_only=True):
    schema: Annotated[int, msgspec.Meta(ge=1, le=SCHEMA)]
    hardware: _HardwareRecord
    software: dict[str, Any]
    started: str
    baseline: list[str] = []
    against: dict[str, Any] | None = None
    facts: dict[str, Any] = {}


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """What was run, where and when; the rest of the file is skipped, which takes no time."""

    perfsuite: _HeadSection
    commit_info: _Commit


class _ExtraInfo(msgspec.Struct, Generic[RecordT], frozen=True, kw_only=True):
    perfsuite: RecordT | msgspec.UnsetType = msgspec.UNSET


class _Entry(msgspec.Struct, Generic[RecordT], frozen=True, kw_only=True):
    extra_info: _ExtraInfo[RecordT]


class RunFile(Head, Generic[RecordT], frozen=True, kw_only=True):
    """A run file, of which `RecordT` says what is read of each benchmark."""

    benchmarks: list[_Entry[RecordT]]

    def records(self) -> list[RecordT]:
        """Return the records of our benchmarks; pytest-benchmark's own have none."""
        records = (entry.extra_info.perfsuite for entry in self.benchmarks)
        return [record for record in records if record is not msgspec.UNSET]


class _Section(_HeadSection, frozen=True, kw_only=True):
    complete: bool
    items: dict[str, str]
    unevaluated: list[str] = []


class _WholeFile(RunFile[Benchmark], frozen=True, kw_only=True):
    perfsuite: _Section


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """A valid run file.

    Attributes:
        against: what two trees were compared (--perf-against); None for a run of one.
    """

    path: Path
    content: bytes  # its bytes
    hardware: str  # the key of the hardware that it ran on
    hardware_name: str
    software: dict[str, Any]
    commit: str  # of the measured tree, or "unversioned"
    dirty: bool  # whether that tree had uncommitted changes
    complete: bool  # whether every selected benchmark was run to its end
    against: dict[str, Any] | None
    unevaluated: list[str]  # what kept the session from being green without a failure
    baseline: list[str]  # when the promoted runs were started that it was compared with
    items: dict[str, str]  # outcome by benchmark key, also of those that left no figures
    started: str  # in ISO 8601
    benchmarks: dict[str, Benchmark]  # by key
    facts: dict[str, Any] = {}  # what decides the machine's speed, besides its key

    @property
    def simulated(self) -> bool:
        """Whether its device was simulated, so that nothing was measured."""
        return self.hardware.startswith(SIMULATED_KEY)

    def faults(self) -> list[str]:
        """Return why this run must not become a baseline; nothing if it may."""
        if self.simulated:
            return [f"its device was simulated ({self.hardware}), and nothing was measured"]
        if self.against is not None:
            return ["it compares two trees (--perf-against), a baseline is of one"]
        faults = [] if self.complete else ["the session did not run to its end"]
        faults += self.unevaluated
        faults += [f"{k} {outcome}" for k, outcome in self.items.items() if outcome != "passed"]
        faults += [
            f"{benchmark.key}: gate {verdict.gate} says {verdict.outcome}"
            for benchmark in self.benchmarks.values()
            for verdict in benchmark.verdicts
            if verdict.outcome is Outcome.FAIL
        ]
        faults += [
            f"{benchmark.key} was contaminated: {'; '.join(benchmark.contamination)}: run it again"
            " on a quiet machine, or, if the machine is to be like this now, without"
            " --benchmark-compare"
            for benchmark in self.benchmarks.values()
            if benchmark.contamination
        ]
        absent = sorted(self.items.keys() - self.benchmarks.keys())
        faults += [f"{key} left no figures" for key in absent]
        return faults


def read_as(path: Path, shape: type[HeadT]) -> tuple[HeadT, bytes]:
    """Read a run file as `Head`, or as what extends it; return its bytes too.

    Raises:
        RunError: it cannot be read, is not JSON (cut short, say), is pytest-benchmark's own
            without our section, was written by a later perfsuite, or lacks a field.
    """
    try:
        content = path.read_bytes()
        # Decoded first, since msgspec checks no text that it skips.
        return msgspec.json.decode(content.decode("utf-8"), type=shape), content
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RunError(f"{path}: {_fault(content, error)}") from None


def _fault(content: bytes, error: Exception) -> str:
    """Return what is wrong with a run file: the most telling of its faults."""
    try:
        document = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as fault:
        return f"not valid JSON, damaged or cut short: {fault}"
    if not isinstance(document, dict) or "perfsuite" not in document:
        return "not a run of perfsuite: it has no section 'perfsuite'"
    section = document["perfsuite"]
    schema = section.get("schema") if isinstance(section, dict) else None
    if not isinstance(schema, int) or isinstance(schema, bool) or schema < 1:
        return f"its schema is {schema!r}, not a version number"
    if schema > SCHEMA:
        return (
            f"written by a later perfsuite (schema {schema}, this one reads {SCHEMA}):"
            " upgrade perfsuite, or promote runs of this version"
        )
    return f"not a valid run: {error}"


def read_run(path: Path) -> Run:
    """Read and check a run file.

    Raises:
        RunError: as `read_as`; or it tells of no benchmark of perfsuite, or holds one twice.
    """
    file, content = read_as(path, _WholeFile)
    section, records = file.perfsuite, file.records()
    if not records and not section.items:
        raise RunError(f"{path}: {NO_BENCHMARK}")
    benchmarks = {record.key: record for record in records}
    if len(benchmarks) != len(records):
        raise RunError(f"{path}: holds a benchmark twice")
    return Run(
        path=path,
        content=content,
        hardware=section.hardware.key,
        hardware_name=f"{section.hardware.count} x {section.hardware.name}",
        software=section.software,
        facts=section.facts,
        commit=file.commit_info.id,
        dirty=file.commit_info.dirty,
        complete=section.complete,
        against=section.against,
        unevaluated=section.unevaluated,
        baseline=section.baseline,
        items=section.items,
        started=section.started,
        benchmarks=benchmarks,
    )


def encode(document: dict[str, Any]) -> bytes:
    """Return a run as indented JSON; NaN and infinity, which JSON has not, become null."""
    return msgspec.json.format(msgspec.json.encode(document, enc_hook=repr), indent=2) + b"\n"
