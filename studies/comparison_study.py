"""How good is --perf-against? A tree against itself, and against one with a slower step.

    python studies/comparison_study.py                 # 30 sessions, 10 planted: over an hour
    python studies/comparison_study.py --sessions 0 --planted 0      # report what was recorded

Each session is one of its own: servers, worktree and all. What is recorded is not repeated, so
that a study which was broken off goes on where it stood. Give it the machine to itself.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median, stdev
from typing import Any

import msgspec
import psutil
from planted import clone, compare_with_head, plant
from recordings import write_whole
from scipy.stats import binomtest

from perfsuite.devices.choice import choose_device
from perfsuite.devices.device import DeviceError
from perfsuite.judging.blocks import Block
from perfsuite.judging.interleaving import Duet
from perfsuite.records.wording import software_changes

FOLDER = Path(__file__).parent.parent / "docs" / "studies"
PLANTED = "benchmarks/test_step_time.py::test_step_time[{precision}]"


class ComparedBenchmark(msgspec.Struct, frozen=True, kw_only=True):
    """What a session said of one benchmark.

    Attributes:
        name: of the benchmark.
        words: SAME, SLOWER and so on, by figure.
        ratios: after over before, one a restart; empty where no turns were taken.
        figures: ratio and interval as they were shown, by figure.
    """

    name: str
    words: dict[str, str]
    ratios: list[float]
    figures: dict[str, str]


class ComparedSession(msgspec.Struct, frozen=True, kw_only=True):
    """One session.

    Attributes:
        planted: by what share the step was slowed down.
        took_s: wall seconds of all of it.
        started: date and time.
        load_1min: the machine's load when it ended.
        benchmarks: what it said.
    """

    planted: float
    took_s: float
    started: str
    load_1min: float
    benchmarks: list[ComparedBenchmark]


class ComparisonStudy(msgspec.Struct, kw_only=True):
    """All sessions of one machine."""

    hardware: str
    count: int
    software: dict[str, Any]
    sessions: list[ComparedSession]


def run_session(
    share: float, arguments: Sequence[str], prepare: Callable[[Path], None] = lambda _: None
) -> ComparedSession:
    """Compare a fresh clone, slowed down or not, with its own HEAD; `prepare` is given the clone.

    Raises:
        RuntimeError: no run was saved.
    """
    started = datetime.now(UTC).isoformat(timespec="seconds")
    with tempfile.TemporaryDirectory(prefix="against-") as home:
        tree = clone(Path(home) / "tree")
        prepare(tree)
        if share:
            plant(tree, share)
        start_s = time.monotonic()
        done = compare_with_head(tree, arguments)
        took_s = time.monotonic() - start_s
    if done.run is None:
        raise RuntimeError(f"no run was saved:\n{done.out}")
    benchmarks = []
    for each in done.run["benchmarks"]:
        record = each["extra_info"]["perfsuite"]
        said = {v["gate"].removeprefix("against "): v for v in record["verdicts"]}
        benchmarks.append(
            ComparedBenchmark(
                name=each["name"],
                words={name: v["word"] or v["outcome"] for name, v in said.items()},
                figures={name: v["figure"] for name, v in said.items()},
                ratios=[
                    _ratio(restart["turns"])
                    for restart in record["against"]["restarts"]
                    if restart["turns"]
                ],
            )
        )
    return ComparedSession(
        planted=share,
        took_s=round(took_s, 1),
        started=started,
        load_1min=round(psutil.getloadavg()[0], 2),
        benchmarks=benchmarks,
    )


def _ratio(turns: Mapping[str, Any]) -> float:
    (only,) = turns.values()
    blocks = msgspec.convert(
        [{"device_s": None} | block for block in only["blocks"]], tuple[Block, ...]
    )
    return round(Duet.of_turns(only["order"], blocks).point("B", over="A"), 6)


def report(study: ComparisonStudy) -> str:
    """Return the study as Markdown."""
    lines = [
        "# How good is `--perf-against`?",
        "",
        told(study, "comparison_study.py"),
        "",
        "Each session compares a fresh clone with its own HEAD: as it is, or with a wait planted"
        " behind every timed step, of a share of the time that the step took. With nothing"
        " planted every FASTER and SLOWER (or LESS, MORE, DIFFERENT) is a false alarm.",
    ]
    return "\n".join([*lines, "", *table(study), ""])


def told(study: ComparisonStudy, script: str) -> str:
    """Return what was measured, when and on what, and by which script, as Markdown."""
    loads = [session.load_1min for session in study.sessions]
    return (
        f"{len(study.sessions)} sessions on {study.count} x {study.hardware}, torch"
        f" {study.software['torch']}, Python {study.software['python']}, from"
        f" {study.sessions[0].started[:10]}; one-minute load {min(loads):.1f} to"
        f" {max(loads):.1f}. Written by `python studies/{script}`. Intervals are Wilson's, at 95 %."
    )


def table(study: ComparisonStudy) -> list[str]:
    """Return what was said of each figure, by what was planted, as a table of Markdown."""
    lines = [
        "| planted | benchmark | figure | sessions | said | false, or found | | median ratio |"
        " SD | restarts |",
        "| ---: | --- | --- | ---: | --- | ---: | --- | ---: | ---: | --- |",
    ]
    for share in sorted({s.planted for s in study.sessions}):
        sessions = [s for s in study.sessions if s.planted == share]
        found: dict[tuple[str, str], list[tuple[str, str, list[float]]]] = {}
        for session in sessions:
            for each in session.benchmarks:
                for figure, word in each.words.items():
                    found.setdefault((each.name, figure), []).append(
                        (word, each.figures[figure], each.ratios)
                    )
        for (name, figure), said in found.items():
            counts = Counter(word for word, *_ in said)
            hits = sum(n for word, n in counts.items() if word not in {"SAME", "INCONCLUSIVE"})
            wilson = binomtest(hits, len(said)).proportion_ci(method="wilson")
            interval = f"[{wilson.low:.1%}, {wilson.high:.1%}]"
            if len(said) > 1 and len({shown for _, shown, _ in said}) == 1:
                interval = "the same figure each time: one trial"
            pooled = [median(ratios) for *_, ratios in said if ratios]
            restarts = [len(ratios) for *_, ratios in said if ratios]
            spread = f"{stdev(pooled):.2%}" if len(pooled) > 1 else ""
            lines.append(
                f"| {share:.0%} | {name.removeprefix('test_')} | {figure} | {len(said)} |"
                f" {', '.join(f'{n} {word}' for word, n in counts.most_common())} | {hits} |"
                f" {interval} |"
                + (
                    f" {median(pooled):.3f}x | {spread} | {min(restarts)} to {max(restarts)} |"
                    if pooled
                    else " | | |"
                )
            )
        took = [s.took_s for s in sessions]
        lines.append(
            f"| {share:.0%} | *a whole session* | seconds | {len(took)} |"
            f" {min(took):.0f} to {max(took):.0f}, median {median(took):.0f} | | | | | |"
        )
    return lines


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--sessions", type=int, default=30, help="with nothing planted (default: %(default)s)")
    add("--planted", type=int, default=10, help="of the slower step (default: %(default)s)")
    add("--slowdown", type=float, default=10.0, metavar="PERCENT", help="of the planted ones")
    add("--budget", type=float, default=240.0, metavar="SECONDS", help="of the planted ones")
    add("--device", choices=("cpu", "cuda"), default="cpu")
    add("--folder", type=Path, default=FOLDER, help="of recordings and report")
    arguments = parser.parse_args(argv)
    if not 0 < arguments.slowdown <= 1000:
        parser.error("--slowdown: above 0, up to 1000 %")
    return arguments


def main(argv: Sequence[str]) -> int:
    """Record what is missing, then report; return an exit code."""
    given = _parse(argv)
    try:
        device = choose_device(given.device)
        precision = "fp16" if given.device == "cuda" else "fp32"
        on = ["--perf-device", given.device]
        one = ["--perf-budget", str(given.budget), PLANTED.format(precision=precision), *on]
        plan = [(given.slowdown / 100, one)] * given.planted
        plan += [(0.0, ["benchmarks", *on])] * given.sessions
        where, versions = device.hardware(), device.software()
        path = given.folder / f"against-{where.key}.json"
        study = ComparisonStudy(
            hardware=where.name, count=where.count, software=versions, sessions=[]
        )
        if path.exists():
            study = msgspec.json.decode(path.read_bytes(), type=ComparisonStudy)
        record(study, path, plan, versions)
        if not study.sessions:
            raise RuntimeError("nothing was recorded")
    except (DeviceError, OSError, RuntimeError, msgspec.DecodeError) as error:
        print(f"against: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nagainst: what is recorded is kept; the same command goes on", file=sys.stderr)
        return 130
    page = path.with_suffix(".md")
    write_whole(page, report(study).rstrip().encode())
    print(f"wrote {page}")
    return 0


def record(
    study: ComparisonStudy,
    path: Path,
    plan: Sequence[tuple[float, Sequence[str]]],
    versions: dict[str, Any],
    run: Callable[[float, Sequence[str]], ComparedSession] = run_session,
) -> None:
    """Run the sessions of a plan that are still missing, and keep each as soon as it is done.

    Raises:
        RuntimeError: the others were recorded with other software.
    """
    have = Counter(session.planted for session in study.sessions)
    for share, arguments in plan:
        if have[share] > 0:
            have[share] -= 1
            continue
        if changes := software_changes(study.software, versions):
            raise RuntimeError(
                f"{path} was recorded with other software ({', '.join(changes)}); move it away"
            )
        session = run(share, arguments)
        study.sessions.append(session)
        write_whole(path, msgspec.json.format(msgspec.json.encode(study), indent=1))
        words = Counter(word for each in session.benchmarks for word in each.words.values())
        said = ", ".join(f"{n} {word}" for word, n in words.items())
        print(f"+{share:.0%}: {said} ({session.took_s:.0f} s)", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
