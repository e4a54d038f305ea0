"""The command ``perfsuite bisect``: its arguments, and what is made of them."""

import argparse
import math
import sys
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from perfsuite.records.schema import RunError

if TYPE_CHECKING:  # argparse keeps the type to itself
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


_AFTER_GOOD = """after GOOD, and before options of pytest:
  BAD                   a commit after the change (default: HEAD)
  FILE                  of the benchmarks (default: all of the suite)"""


def positive(text: str) -> float:
    """Read a positive number, as argparse has it."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no positive number")
    return value


def add_bisecting(commands: "Commands") -> None:
    """Add the command's arguments."""
    bisecting = commands.add_parser(
        "bisect",
        usage="%(prog)s GOOD [BAD] [FILE ...] [options, of pytest too]",
        help="find the commits at which a figure changed; what else is given goes to pytest",
        epilog=_AFTER_GOOD,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    # The only positional: newer releases of argparse give one that may be left out what follows an
    # option that they do not know, such as the value of -k.
    bisecting.add_argument("good", metavar="GOOD", help="a commit, branch or tag before the change")
    bisecting.add_argument(
        "--packages",
        action="store_true",
        help="GOOD and BAD are environments, each an interpreter or a file of requirements"
        " (default of BAD: this interpreter)",
    )
    bisecting.add_argument(
        "--suite",
        type=Path,
        default=Path("benchmarks"),
        metavar="DIR",
        help="folder of the benchmarks (default: %(default)s)",
    )
    bisecting.add_argument(
        "--figure",
        metavar="NAME",
        help="name of the figure to search for (default: the first that differs)",
    )
    bisecting.add_argument(
        "--budget",
        type=positive,
        default=1800.0,
        metavar="SECONDS",
        help="for each benchmark, after which it answers with what it knows (default: %(default)g)",
    )
    bisecting.add_argument(
        "-o", "--output", type=Path, metavar="DIR", help="to write the answer and its picture in"
    )


def run_bisection(given: argparse.Namespace) -> int:
    """Search as was asked for; return the exit code."""
    if not given.suite.is_dir():
        raise RunError(f"{given.suite}: no folder of benchmarks; name it with --suite")
    files = list(takewhile(lambda each: not each.startswith("-"), given.further))
    options = given.further[len(files) :]
    bad = files.pop(0) if files and not _of_suite(files[0], given.suite) else None
    if outside := [each for each in files if not _of_suite(each, given.suite)]:
        raise RunError(f"{outside[0]}: no file of benchmarks in {given.suite}")
    # Imported late: it imports pytest.
    from perfsuite.bisecting.bisection_session import bisect, commit_row, package_row

    if given.packages:
        row = package_row(given.good, bad or sys.executable)
    else:
        row = commit_row(given.good, bad or "HEAD")
    return bisect(
        row,
        given.suite,
        files,
        figure=given.figure,
        budget_s=given.budget,
        output=given.output,
        arguments=options,
    )


def _of_suite(argument: str, suite: Path) -> bool:
    """Tell whether an argument is a file of the suite, or what is in one, by its node id."""
    path = Path(argument.partition("::")[0])
    return (
        path.is_file() and path.resolve().is_relative_to(suite.resolve()) and path.suffix == ".py"
    )
