"""The command ``perfsuite``: start a suite, promote, accept, bisect, history, advise, report."""
# PYTHON_ARGCOMPLETE_OK  # by which argcomplete knows that a shell may ask this command

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from perfsuite.bisecting.bisect_command import add_bisecting, positive, run_bisection
from perfsuite.judging.thresholds import FILE_NAME, ThresholdsError
from perfsuite.records.baseline import BaselineError
from perfsuite.records.files import write_new
from perfsuite.records.ledgers import LedgerError, accept
from perfsuite.records.promotion import promote
from perfsuite.records.schema import RunError

_HOW = """Judge mixed-precision training: is it faster, does it still learn, did it change?

  perfsuite init                               write benchmarks/, and say there what is trained
  pytest benchmarks                            time and judge it
  pytest benchmarks --perf-against main        compare it with another commit, both in turns
  perfsuite bisect v1.2                        find the commits since v1.2 that changed a figure
  pytest benchmarks --benchmark-json=run.json  keep the run in a file
  perfsuite promote run.json                   make that run the baseline
  pytest benchmarks --benchmark-compare        compare with the baseline"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return 0, or 1 after one line that says what was wrong."""
    given = _parse(arguments)
    try:
        commands = {
            "init": _init,
            "promote": _promote,
            "accept": _accept,
            "history": _history,
            "report": _report,
            "advise": _advise,
            "advise-step": _advise_step,
            "bisect": run_bisection,
        }
        return commands[given.command](given)
    except (BaselineError, RunError, LedgerError, ThresholdsError, OSError) as error:
        print(f"perfsuite: {error}", file=sys.stderr)
        return 1


def _add_folder(parser: argparse.ArgumentParser, default: str, what: str) -> None:
    parser.add_argument(
        "folder",
        nargs="?",
        type=Path,
        default=Path(default),
        metavar="DIR",
        help=f"{what} (default: %(default)s)",
    )


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="perfsuite", description=_HOW, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    starting = commands.add_parser(
        "init", help="write the files of a new suite; overwrites nothing"
    )
    _add_folder(starting, "benchmarks", "to write them in")
    promoting = commands.add_parser(
        "promote", help="make runs the baseline of their hardware; all of them, or none"
    )
    promoting.add_argument("runs", nargs="+", type=Path, metavar="RUN.json")
    promoting.add_argument(
        "--suite", type=Path, default=Path("benchmarks"), help="folder with thresholds.toml"
    )
    promoting.add_argument(
        "--replace", action="store_true", help="remove all promoted runs but these"
    )
    promoting.add_argument(
        "--allow-dirty",
        action="store_true",
        help="accept runs of a tree with uncommitted changes, or without version control",
    )
    promoting.add_argument(
        "--allow-busy",
        action="store_true",
        help="accept runs beside which others used the cores, on a machine that is never quiet",
    )
    accepting = commands.add_parser(
        "accept", help="accept the present counts of a step: later runs fail where theirs differ"
    )
    accepting.add_argument(
        "runs",
        nargs="*",
        type=Path,
        metavar="RUN.json",
        help="with a ledger (default: count now, by `pytest DIR -k 'ledger or collectives'`)",
    )
    accepting.add_argument(
        "--suite",
        type=Path,
        default=Path("benchmarks"),
        metavar="DIR",
        help="folder of the benchmarks (default: %(default)s)",
    )
    telling = commands.add_parser("history", help="show the lasting changes of figures over runs")
    _add_folder(telling, ".benchmarks", "folder with run files")
    telling.add_argument(
        "--hardware", metavar="KEY", help="the hardware to show, if there are runs of several"
    )
    how = telling.add_mutually_exclusive_group()
    how.add_argument(
        "-o", "--output", type=Path, metavar="FILE.svg", help="also write the chart to this file"
    )
    how.add_argument(
        "--max-age",
        type=positive,
        metavar="DAYS",
        help="only fail if nothing was evaluated for so long, on any of the hardware",
    )
    advising = commands.add_parser(
        "advise", help="say which margin this machine can hold, and what another would take"
    )
    _add_folder(advising, ".benchmarks", "folder with past runs")
    advising.add_argument(
        "--suite",
        type=Path,
        default=Path("benchmarks"),
        help="folder with thresholds.toml and promoted runs (default: %(default)s)",
    )
    advising.add_argument(
        "--hardware", metavar="KEY", help="the hardware to advise on, if there are runs of several"
    )
    advising.add_argument(
        "--budget",
        type=positive,
        default=60.0,
        metavar="SECONDS",
        help="time to confirm a suspicion, as --perf-budget (default: %(default)g)",
    )
    advising.add_argument(
        "--margin",
        type=positive,
        metavar="SHARE",
        help="the margin that you want, such as 0.03 (default: that of thresholds.toml)",
    )
    advising.add_argument(
        "--write", action="store_true", help="put the margins into thresholds.toml"
    )
    stepping = commands.add_parser(
        "advise-step",
        help="try levers on the training step in turns; what is given after DIR goes to pytest",
    )
    _add_folder(stepping, "benchmarks", "folder of the benchmarks")
    add_bisecting(commands)
    reporting = commands.add_parser(
        "report", help="write a page with charts of the newest run, compared with those before it"
    )
    reporting.add_argument("runs", nargs="+", type=Path, metavar="RUN.json")
    reporting.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DIR", help="to write the page in"
    )
    if "_ARGCOMPLETE" in os.environ:  # a shell asks, by way of argcomplete, what may follow
        import argcomplete

        argcomplete.autocomplete(parser)
    given, further = parser.parse_known_args(arguments)
    if further and given.command not in ("advise-step", "bisect"):
        parser.error(f"unrecognized arguments: {' '.join(further)}")
    given.further = further
    return given


def _init(given: argparse.Namespace) -> int:
    from perfsuite.starting import start_suite

    conftest, *others = start_suite(given.folder)
    for path in (conftest, *others):
        print(f"wrote {path}")
    print(f"It runs as it is: pytest {given.folder}")
    print(f"Then put your own model, data and step into {conftest}.")
    return 0


def _promote(given: argparse.Namespace) -> int:
    allowed = {"allow_dirty": given.allow_dirty, "allow_busy": given.allow_busy}
    written = promote(given.runs, given.suite, replace=given.replace, **allowed)
    for path in written:
        print(f"promoted {path}")
    return 0


def _accept(given: argparse.Namespace) -> int:
    if not given.suite.is_dir():
        raise LedgerError(f"{given.suite}: no folder of benchmarks; name it with --suite")
    with TemporaryDirectory(prefix="perfsuite-") as folder:
        runs = given.runs or [_count(given.suite, Path(folder) / "run.json")]
        for path in accept(runs, given.suite):
            print(f"accepted {path}")
    return 0


def _count(suite: Path, path: Path) -> Path:
    """Run the benchmarks that count; return the path of their run."""
    command = [sys.executable, "-m", "pytest", str(suite), "-k", "ledger or collectives", "-q"]
    done = subprocess.run(  # it is red wherever there is something to be accepted
        [*command, f"--benchmark-json={path}"], check=False, capture_output=True, text=True
    )
    if not path.exists():
        raise LedgerError(f"nothing was counted:\n{done.stdout}{done.stderr}".rstrip())
    return path


def _history(given: argparse.Namespace) -> int:
    if given.max_age is not None:
        return _check_age(given.folder, given.hardware, given.max_age)
    # Imported late: the other commands need neither ruptures nor matplotlib.
    from perfsuite.records.history import HistoryError, read_history, tell

    if given.output is not None and given.output.exists():
        raise RunError(f"{given.output} exists and is not overwritten")
    try:
        histories, skipped = read_history(sorted(given.folder.rglob("*.json")), given.hardware)
    except HistoryError as error:
        raise RunError(f"{given.folder}: {error}") from None
    for series in histories:
        print("\n".join(tell(series)))
    for reason in skipped:
        print(f"skipped: {reason}", file=sys.stderr)
    if given.output is not None:
        from perfsuite.report.panels import draw_history

        write_new(given.output, draw_history(histories, given.hardware or str(given.folder)))
        print(f"drew {given.output}")
    return 0


def _check_age(folder: Path, hardware: str | None, max_age_days: float) -> int:
    from perfsuite.records.liveness import last_evaluated, why_stale

    now = datetime.now(UTC)
    evaluated, skipped = last_evaluated(sorted(folder.rglob("*.json")), now, hardware)
    if (why := why_stale(evaluated, skipped, now, max_age_days)) is not None:
        raise RunError(f"{folder}: {why}")
    for reason in skipped:
        print(f"skipped: {reason}", file=sys.stderr)
    for each in evaluated:
        print(each.told(now))
    return 0


def _advise(given: argparse.Namespace) -> int:
    # Imported late: it needs ruptures, as a history does.
    from perfsuite.records.advice_text import advised_table, as_toml, tell_advice, write_table
    from perfsuite.records.evidence import read_evidence

    evidence = read_evidence(given.suite, given.folder, given.hardware)
    for reason in evidence.skipped:
        print(f"skipped: {reason}", file=sys.stderr)
    table = advised_table(evidence, budget_s=given.budget)
    lines = tell_advice(evidence, budget_s=given.budget, margin=given.margin)
    print("\n".join([*lines, "", *as_toml(evidence.hardware, table)]))
    if given.write:
        path = given.suite / FILE_NAME
        write_table(path, evidence.hardware, table)
        print(f"\nwrote {path}")
    return 0


def _advise_step(given: argparse.Namespace) -> int:
    if not given.folder.is_dir():
        raise RunError(f"{given.folder}: no folder of benchmarks; name it before pytest's options")
    file = given.folder / "test_step_advice.py"
    if not file.is_file():
        line = "from perfsuite.benchmarks.step_advice import test_step_advice"
        raise RunError(f"{file}: there is no such file; write `{line}` into it")
    command = [sys.executable, "-m", "pytest", str(file), "-q", *given.further]
    return min(subprocess.call(command), 1)


def _report(given: argparse.Namespace) -> int:
    from perfsuite.report.render import newest_first, write_report

    (newest, *past), left_out = newest_first(given.runs)
    for reason in left_out:
        print(f"skipped: {reason}", file=sys.stderr)
    for path in write_report(newest, past, given.output):
        print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
