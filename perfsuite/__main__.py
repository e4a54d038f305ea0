"""``python -m perfsuite promote RUN.json ...``: make runs the baseline of their hardware."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from perfsuite.baseline import BaselineError, promote
from perfsuite.runs import RunError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return 0, or 1 after one line that says what was wrong."""
    parser = argparse.ArgumentParser(prog="python -m perfsuite", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    promoting = commands.add_parser(
        "promote", help="make runs the baseline of their hardware; all of them, or none"
    )
    promoting.add_argument("runs", nargs="+", type=Path, metavar="RUN.json")
    promoting.add_argument(
        "--suite", type=Path, default=Path("benchmarks"), help="folder with thresholds.toml"
    )
    promoting.add_argument(
        "--replace", action="store_true", help="supersede promoted runs of another commit"
    )
    promoting.add_argument(
        "--allow-dirty",
        action="store_true",
        help="accept runs of a tree with uncommitted changes, or without version control",
    )
    given = parser.parse_args(arguments)
    try:
        written = promote(
            given.runs, given.suite, replace=given.replace, allow_dirty=given.allow_dirty
        )
    except (BaselineError, RunError, OSError) as error:
        print(f"perfsuite: {error}", file=sys.stderr)
        return 1
    for path in written:
        print(f"promoted {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
