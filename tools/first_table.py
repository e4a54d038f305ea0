"""Write the table of a new user's first session: ``python tools/first_table.py docs/start.md``.

Runs what ``perfsuite init`` writes, on the CPU and in a folder of its own, and puts the verdicts
that it prints between the two markers.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from figures import replace

BEGIN, END = "<!-- first table: begin -->", "<!-- first table: end -->"
WIDTH = 100


def table_in(printed: str) -> str:
    """Return the verdicts in what a session printed, and how many of each there are.

    Raises:
        ValueError: there are none.
    """
    lines = printed.splitlines()
    first = next((at for at, line in enumerate(lines) if line.startswith("verdict ")), None)
    if first is None:
        raise ValueError(f"no verdicts in:\n{printed}")
    last = next(at for at in range(first, len(lines)) if lines[at][:1].isdigit())
    return "\n".join(lines[first : last + 1])


def first_session() -> str:
    """Return what the session of a new suite prints.

    Raises:
        ValueError: it was not green.
    """
    with tempfile.TemporaryDirectory(prefix="first-") as home:
        for arguments in (["-m", "perfsuite", "init"], ["-m", "pytest", "benchmarks"]):
            device = ["--perf-device=cpu", "-pno:cacheprovider"] * (arguments[1] == "pytest")
            done = subprocess.run(
                [sys.executable, *arguments, *device],
                cwd=home,
                env={**os.environ, "COLUMNS": str(WIDTH)},
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode != 0:
                raise ValueError(f"not green:\n{done.stdout}{done.stderr}")
    return done.stdout


def main(arguments: list[str]) -> int:
    """Rewrite the page; return 0, or 1 after what was wrong."""
    page = Path(arguments[0])
    try:
        text = page.read_text(encoding="utf-8")
        replace(text, "", begin=BEGIN, end=END)  # before it takes a minute
        shown = "\n".join([BEGIN, "```text", table_in(first_session()), "```", END])
        page.write_text(replace(text, shown, begin=BEGIN, end=END), encoding="utf-8")
    except (OSError, ValueError) as error:
        print(f"first_table: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
