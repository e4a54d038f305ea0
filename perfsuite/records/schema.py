"""Run files: one session's JSON, as pytest-benchmark writes it with a section of our own.

Read with every field checked.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from perfsuite.judging.gates import Outcome, Verdict
from perfsuite.records.operators import Profile

REPORT_FILES = ("report.html", "report.md")
"""What a report is made of."""
SCHEMA = 1
"""Version of the section ``perfsuite``; raised when its meaning changes."""


class RunError(ValueError):
    """A run file that cannot be used; the message names the file and the reason."""


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """One figure that a baseline is compared by."""

    value: Annotated[float, msgspec.Meta(gt=0)]
    unit: str
    better: Literal["lower", "higher"]


class Benchmark(msgspec.Struct, frozen=True, kw_only=True):
    """What one benchmark left for comparison.

    Attributes:
        key: ``file::name[params]``, the file relative to the suite, so that it does not
            depend on where pytest was started.
        config: what was measured; figures of different configs are not compared.
        metrics: the figures, by name.
        verdicts: of all its gates.
        markers: names of the pytest markers that it had.
        operators: where the time of its step goes, None if it was not looked into.
        state: of the machine, "before" and "after" it.
        reasons: why figures may have moved that were compared, a line each.
        arms: what was timed, by name, and how it warmed up.
        raw: whatever else it kept, by name (see `perfsuite.report.raw_figures`).
        against: the turns of two trees, where two were compared.
    """

    key: str
    config: dict[str, Any]
    metrics: dict[str, Metric]
    verdicts: list[Verdict]
    markers: list[str] = []
    operators: Profile | None = None
    state: dict[str, dict[str, Any]] = {}
    reasons: list[str] = []
    arms: dict[str, Any] = {}
    raw: dict[str, Any] = {}
    against: dict[str, Any] | None = None


class _HardwareRecord(msgspec.Struct, frozen=True, kw_only=True):
    key: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]  # names a folder
    name: str
    count: int = 1


class _Section(msgspec.Struct, frozen=True, kw_only=True):
    hardware: _HardwareRecord
    software: dict[str, Any]
    complete: bool
    items: dict[str, str]
    started: str
    against: dict[str, Any] | None = None
    unevaluated: list[str] = []
    baseline: list[str] = []


class _Commit(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    dirty: bool


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """A valid run file.

    Attributes:
        path: where it was read.
        content: its bytes.
        hardware: key of the hardware that it ran on.
        hardware_name: what it is called, and how many there are.
        software: versions, by name.
        commit: of the measured tree, or "unversioned".
        dirty: whether that tree had uncommitted changes.
        complete: whether every selected benchmark was run to its end.
        against: what two trees were compared (--perf-against); None for a run of one.
        unevaluated: what kept the session from being green without a failure.
        baseline: when the promoted runs were started that it was held against.
        items: outcome by benchmark key, also of those that left no figures.
        started: when, in ISO 8601.
        benchmarks: by key.
    """

    path: Path
    content: bytes
    hardware: str
    hardware_name: str
    software: dict[str, Any]
    commit: str
    dirty: bool
    complete: bool
    against: dict[str, Any] | None
    unevaluated: list[str]
    baseline: list[str]
    items: dict[str, str]
    started: str
    benchmarks: dict[str, Benchmark]

    def faults(self) -> list[str]:
        """Return why this run must not become a baseline; nothing if it may."""
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
        absent = sorted(self.items.keys() - self.benchmarks.keys())
        faults += [f"{key} left no figures" for key in absent]
        return faults


def read_run(path: Path) -> Run:
    """Read and check a run file.

    Raises:
        RunError: it cannot be read, is not JSON (cut short, say), is pytest-benchmark's own
            without our section, was written by a later perfsuite, or lacks a field.
    """
    try:
        content = path.read_bytes()
        document = msgspec.json.decode(content)
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RunError(f"{path}: not valid JSON, damaged or cut short: {error}") from None
    if not isinstance(document, dict) or "perfsuite" not in document:
        raise RunError(f"{path}: no run of perfsuite: it has no section 'perfsuite'")
    _check_schema(path, document["perfsuite"])
    try:
        section = msgspec.convert(document["perfsuite"], _Section)
        commit = msgspec.convert(document.get("commit_info"), _Commit)
        entries = msgspec.convert(document.get("benchmarks"), list[dict[str, Any]])
        extras = [msgspec.convert(entry.get("extra_info"), dict[str, Any]) for entry in entries]
        benchmarks = [
            msgspec.convert(extra["perfsuite"], Benchmark)
            for extra in extras
            if "perfsuite" in extra
        ]
    except msgspec.ValidationError as error:
        raise RunError(f"{path}: not a valid run: {error}") from None
    if not benchmarks:
        raise RunError(f"{path}: holds no benchmark of perfsuite")
    by_key = {benchmark.key: benchmark for benchmark in benchmarks}
    if len(by_key) != len(benchmarks):
        raise RunError(f"{path}: holds a benchmark twice")
    return Run(
        path=path,
        content=content,
        hardware=section.hardware.key,
        hardware_name=f"{section.hardware.count} x {section.hardware.name}",
        software=section.software,
        commit=commit.id,
        dirty=commit.dirty,
        complete=section.complete,
        against=section.against,
        unevaluated=section.unevaluated,
        baseline=section.baseline,
        items=section.items,
        started=section.started,
        benchmarks=by_key,
    )


def _check_schema(path: Path, section: object) -> None:
    schema = section.get("schema") if isinstance(section, dict) else None
    if not isinstance(schema, int) or isinstance(schema, bool) or schema < 1:
        raise RunError(f"{path}: its schema is {schema!r}, not a version number")
    if schema > SCHEMA:
        raise RunError(
            f"{path}: written by a later perfsuite (schema {schema}, this one reads {SCHEMA}):"
            " upgrade perfsuite, or promote runs of this version"
        )


def short_name(key: str) -> str:
    """Return a benchmark's name as it is shown: without its file, and without ``test_``."""
    name, bracket, parameters = key.partition("[")  # which may hold colons themselves
    return name.rpartition("::")[2].removeprefix("test_") + bracket + parameters


def gate_name(key: str, gate: str) -> str:
    """Return a benchmark's name as it is shown, and the gate's where that says more."""
    benchmark = short_name(key)
    gate = gate.removeprefix("against ")
    return benchmark if benchmark.startswith(gate) else f"{benchmark} {gate}"


def quantity(value: float, unit: str) -> str:
    """Return a figure with its unit, ready to read."""
    if unit == "B":
        return f"{value:,.0f} B"
    if unit == "s" and value < 1:
        return f"{value * 1e3:.4g} ms"
    return f"{value:.4g} {unit}".rstrip()


def software_changes(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return what differs between two sets of versions, a line each."""
    return [
        f"{name} {then.get(name)} -> {now.get(name)}"
        for name in sorted(then.keys() | now.keys())
        if then.get(name) != now.get(name)
    ]


def encode(document: dict[str, Any]) -> bytes:
    """Return a run as indented JSON; NaN and infinity, which JSON has not, become null."""
    return msgspec.json.format(msgspec.json.encode(document, enc_hook=repr), indent=2) + b"\n"
