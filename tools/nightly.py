"""The nightly gate: ``python tools/nightly.py gate --device cuda --out OUT [--history DIR]``.

Runs the suite against the baseline of its hardware and leaves in OUT what came of it: ``run.json``,
``junit.xml``, ``report/``, and ``outcome.json`` for whatever acts on it. ``append DIR OUT ...``
adds such runs to a history, ``torch 2.14.*`` installs the PyTorch that a night is to judge.
"""

import argparse
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec
from nights import NEWEST, NightlyError, NightOutcome, append, leg_of, past_runs
from red_issue import ANSWER, ANSWERS, answers_of, code, shorten

from perfsuite.devices.choice import KINDS
from perfsuite.records.commits import WHICH
from perfsuite.records.files import write_new
from perfsuite.records.schema import Run, RunError, read_run

SUMMARY_BYTES = 1_000_000
"""Of a report that GitHub shows with the job: of a step with more than 1 MiB it shows nothing."""
BUDGET_S = 600
"""Of each benchmark, for what is not clear. Where processes scatter by 2 %, the usual minute leaves
a loss of 7 % unclear on most nights, as docs/studies/nights.md shows."""
SEARCHED = 0.75
"""Of a bisection's time, what it may search: before, it sets up, and after, it ends a round."""
SEARCH_S = 300.0
"""What a search of sixty-four commits takes at most on a quiet machine: with less, none but the
first is begun."""
CLEANING_UP_S = 60.0
"""That a bisection which ran over is given to end its processes, and to remove its worktrees."""
OUT_OF_TIME = "out of time"


def gate(
    device: str, out: Path, suite: Path, history: Path | None, torch: str, *, bisect_s: float
) -> int:
    """Run the suite, write what came of it, and return the exit code that says so.

    Whatever is red is bisected for `bisect_s` seconds in all.

    Raises:
        NightlyError: `out` is not empty, `history` is no folder, or `torch` is no version.
        OSError: something could not be written.
    """
    if out.exists() and not (out.is_dir() and next(out.iterdir(), None) is None):
        raise NightlyError(f"{out} exists and is not empty")
    if history is not None and not history.is_dir():
        raise NightlyError(f"{history} is no folder with a history")
    leg = leg_of(torch)
    out.mkdir(parents=True, exist_ok=True)
    outcome, run = judge(_run_suite(device, out, suite, history), out / "run.json", leg)
    if run is not None:
        promoted = suite / "baselines" / run.hardware
        folders = [promoted] if history is None else [promoted, history / run.hardware / leg]
        past = [path for folder in folders for path in past_runs(folder, run)]
        if fault := _write_report(past, run.path, out / "report"):
            outcome = _without_report(outcome, fault)
    write_new(out / "outcome.json", msgspec.json.format(msgspec.json.encode(outcome)) + b"\n")
    print(f"nightly: {outcome.verdict}{': ' * bool(outcome.reason)}{outcome.reason}")
    _show(_told(outcome, out / "report" / "report.md"))
    if run is not None:  # after all else: the job's time may end in the midst of it
        bisect(run, device, out / ANSWERS, bisect_s)
        _show([f"- {fact}" for fact in answers_of(out)])
    return outcome.exit_code


def bisect(run: Run, device: str, folder: Path, budget_s: float) -> None:
    """Run the bisections that red benchmarks told of, in their order, each with all that is left.

    One answer is worth more than the halves of two: often it is the same commit. Where too little
    is left none but the first is begun, and what still runs at the end is ended. Where one left no
    answer, why is written in its place.
    """
    deadline_s = time.monotonic() + budget_s
    told = [line for each in run.benchmarks.values() for line in each.reasons]
    commands = [shlex.split(line.removeprefix(WHICH)) for line in told if line.startswith(WHICH)]
    for number, command in enumerate(commands):
        home, why = folder / str(number), OUT_OF_TIME
        left_s = deadline_s - time.monotonic()
        if SEARCHED * left_s >= SEARCH_S or (number == 0 and budget_s > 0):
            given = f"--budget={max(1.0, SEARCHED * left_s):.0f}"
            options = [f"--perf-device={device}", given, f"--output={home}"]
            why = run_until([sys.executable, "-m", "perfsuite", *command, *options], deadline_s)
        if not (home / ANSWER).exists():
            line = f"    no answer: {why}: {shlex.join(['perfsuite', *command])}\n"
            write_new(home / ANSWER, line.encode())


def run_until(command: Sequence[str], deadline_s: float) -> str:
    """Run a command, and end it at a time of `time.monotonic`; first so that it can clean up.

    Returns how it ended.
    """
    with subprocess.Popen(command) as process:
        try:
            return f"ended with {process.wait(max(0.0, deadline_s - time.monotonic()))}"
        except subprocess.TimeoutExpired:
            print(f"nightly: {OUT_OF_TIME}: {shlex.join(command)}", file=sys.stderr)
            process.terminate()
            try:
                process.wait(CLEANING_UP_S)
            except subprocess.TimeoutExpired:
                process.kill()
            return OUT_OF_TIME


def _run_suite(device: str, out: Path, suite: Path, history: Path | None) -> int:
    options = [
        f"--perf-device={device}",
        "--benchmark-compare",
        f"--benchmark-json={out / 'run.json'}",
        f"--junit-xml={out / 'junit.xml'}",
        f"--perf-budget={BUDGET_S}",
        # Past nights teach how figures spread from one to the next.
        *([] if history is None else [f"--perf-history={history}"]),
    ]
    # Into a pipe, as that of a workflow's log, Python would else write only now and then.
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "pytest", str(suite), *options]
    code = subprocess.run(command, env=environment, check=False).returncode
    return code if code >= 0 else 128 - code  # ended by a signal: what a shell would say


def judge(code: int, path: Path, leg: str) -> tuple[NightOutcome, Run | None]:
    """Return what came of a session, and its run if that can be read.

    Args:
        code: that pytest ended with.
        path: of the run, which need not be there.
        leg: which PyTorch was asked for.
    """
    run, reason = None, ""
    try:
        run = read_run(path)
    except RunError as error:
        reason = str(error) if path.exists() else f"pytest ended with {code} and wrote no run"
    else:
        if not run.complete:
            reason = "the session did not run to its end"
        elif code not in (0, 1):
            reason = f"pytest ended with {code}"
    outcome = NightOutcome(
        exit_code=code or int(bool(reason)),
        verdict="broken" if reason else "red" if code else "green",
        reason=reason,
        hardware=run.hardware if run else None,
        torch=str(run.software.get("torch")) if run else _installed("torch"),
        commit=run.commit if run else os.environ.get("GITHUB_SHA"),
        leg=leg,
        runner=os.environ.get("RUNNER_NAME"),
        failed=[key for key, what in run.items.items() if what != "passed"] if run else [],
    )
    return outcome, run


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _write_report(past: Sequence[Path], run: Path, folder: Path) -> str:
    """Write the report; return "", or one line that says why it could not be written."""
    command = [sys.executable, "-m", "perfsuite", "report"]
    command += [*map(str, past), str(run), "-o", str(folder)]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    sys.stderr.write(done.stderr)
    if done.returncode == 0 and (folder / "report.md").is_file():
        return ""
    said = done.stderr.splitlines() or [f"it ended with {done.returncode}"]
    return f"the report could not be written: {said[-1]}"


def _without_report(outcome: NightOutcome, fault: str) -> NightOutcome:
    """Return the outcome of a night whose report is missing, which nobody can look into."""
    if outcome.verdict == "green":
        return msgspec.structs.replace(outcome, verdict="broken", reason=fault, exit_code=1)
    return msgspec.structs.replace(outcome, reason=outcome.reason or fault)


def _told(outcome: NightOutcome, report: Path) -> list[str]:
    """Return the lines of a night's report; or else what became of it."""
    lines = [f"**{outcome.verdict}** {code(outcome.reason)}".rstrip(), ""]
    lines += [f"- {code(key)} did not pass" for key in outcome.failed if not report.is_file()]
    return lines + ([report.read_text(encoding="utf-8")] if report.is_file() else [])


def _show(lines: Sequence[str]) -> None:
    """Append lines to what GitHub shows with the job."""
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if summary and lines:
        with Path(summary).open("a", encoding="utf-8") as file:
            file.write(shorten("\n".join(lines), SUMMARY_BYTES) + "\n")


def install_torch(wanted: str) -> None:
    """Install a release of PyTorch, and the torchvision that belongs to it.

    Raises:
        NightlyError: it is no version such as 2.14.1 or 2.14.*, or cannot be installed.
    """
    if leg_of(wanted) == NEWEST:
        print("nightly: torch stays as it is installed")
        return
    command = [sys.executable, "-m", "pip", "install", f"torch=={wanted}", "torchvision"]
    if code := subprocess.run(command, check=False).returncode:
        raise NightlyError(f"torch {wanted} could not be installed: pip ended with {code}")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python tools/nightly.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    gating = commands.add_parser("gate", help="run the suite against its baseline, and report")
    gating.add_argument("--device", choices=("auto", *KINDS), default="cuda")
    gating.add_argument("--out", type=Path, required=True, help="new or empty folder")
    gating.add_argument("--suite", type=Path, default=Path("benchmarks"))
    gating.add_argument(
        "--history",
        type=Path,
        metavar="DIR",
        help="past runs: to learn from, and to report beside this one",
    )
    gating.add_argument(
        "--torch",
        default="",
        metavar="VERSION",
        help="PyTorch that was asked for; each has a history of its own",
    )
    gating.add_argument(
        "--bisect",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="time to search for the commits that made it red, in all (default: none)",
    )
    appending = commands.add_parser("append", help="add the runs of nights to a history")
    appending.add_argument("history", type=Path, metavar="DIR")
    appending.add_argument(
        "outs", nargs="*", type=Path, metavar="OUT", help="folder that a gate wrote"
    )
    installing = commands.add_parser("torch", help="install a release of PyTorch")
    installing.add_argument("version", help='such as 2.14.1 or 2.14.*; "" leaves it as it is')
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code, or 1 after one line that says what was wrong."""
    given = _parse(arguments)
    try:
        if given.command == "gate":
            return gate(
                given.device,
                given.out.absolute(),
                given.suite,
                given.history,
                given.torch,
                bisect_s=given.bisect,
            )
        if given.command == "append":
            append(given.history, given.outs)
        else:
            install_torch(given.version)
    except (NightlyError, OSError) as error:
        print(f"nightly: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
