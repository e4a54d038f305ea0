"""Keep one GitHub issue in step with the nightly gate: ``python tools/red_issue.py FOLDER``.

FOLDER has a folder for each machine and PyTorch, as ``tools/nightly.py gate`` wrote it. Red opens
an issue, or comments on the one that is open; green closes it. Needs nothing but Python and gh.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

LABEL = "perf-regression"
TITLE = "The nightly performance gate is red"
BODY_BYTES = 64_000
"""GitHub refuses a body of more than 65,536 characters, of which none is less than a byte."""
ANSWERS = "bisections"
"""The folder of a leg in which each bisection leaves a folder with its answer."""
ANSWER = "bisect.md"
CUT = "\n\n(cut here: the rest is in the run's artefacts)"


class IssueError(RuntimeError):
    """The issue could not be kept in step; the message is one line."""


@dataclass(frozen=True, kw_only=True)
class Leg:
    """What came of one machine and PyTorch.

    Attributes:
        title: which one.
        red: whether it is anything but green.
        facts: why, a line each.
        report: in Markdown, "" without one.
    """

    title: str
    red: bool
    facts: list[str]
    report: str = ""


def shorten(text: str, size: int) -> str:
    """Return the text, cut to a number of bytes and marked so where it is longer."""
    encoded = text.encode("utf-8")
    if len(encoded) <= size:
        return text
    return encoded[: max(0, size - len(CUT))].decode("utf-8", errors="ignore") + CUT


def code(text: str) -> str:
    """Return text in which nothing is markup or a mention; "" stays that."""
    plain = " ".join(text.replace("`", "'").split())
    return f"`{plain}`" if plain else ""


def read_leg(folder: Path) -> Leg:
    """Return what came of one leg; what does not say clearly that it is green is red."""
    try:
        outcome = json.loads((folder / "outcome.json").read_text(encoding="utf-8"))
        verdict, failed = outcome["verdict"], [str(key) for key in outcome["failed"]]
        names = [outcome["hardware"] or "unknown hardware", f"torch {outcome['torch']}"]
        names += [outcome["runner"]] * bool(outcome["runner"])
        title, reason = " ".join(", ".join(names).split()), str(outcome["reason"])
        green = verdict == "green" and outcome["exit_code"] == 0 and not failed
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        why = f"its outcome cannot be read: {code(f'{type(error).__name__}: {error}')}"
        return Leg(title=folder.name, red=True, facts=[why])
    facts = [f"verdict: {code(str(verdict))} {code(reason)}".rstrip()]
    facts += [f"commit: {code(str(outcome.get('commit')))}"]
    facts += [f"did not pass: {code(key)}" for key in failed]
    facts += answers_of(folder)
    try:
        report = (folder / "report" / "report.md").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        report = ""
    return Leg(title=title, red=not green, facts=facts, report=report)


def answers_of(folder: Path) -> list[str]:
    """Return what bisections of a leg found, a line each."""
    facts = []
    for path in sorted(folder.glob(f"{ANSWERS}/*/{ANSWER}")):
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        facts += [f"bisected: {code(line)}" for line in lines if line.startswith("    ")]
    return facts


def read_legs(folder: Path, expected: int, result: str) -> list[Leg]:
    """Return all legs; one that left nothing behind is a red one.

    Args:
        folder: with a folder for each leg; that itself need not be there.
        expected: how many legs there should be.
        result: of the job that ran them.
    """
    found = sorted(path for path in folder.glob("*") if path.is_dir())
    legs = [read_leg(path) for path in found]
    if len(legs) < expected:
        why = f"{len(legs)} of {expected} left an outcome: a machine that is away, or died"
        legs.append(Leg(title="machines without an outcome", red=True, facts=[why]))
    if result != "success" and not any(leg.red for leg in legs):
        legs.append(Leg(title="the job itself", red=True, facts=[f"it ended with {result!r}"]))
    return legs


def body(legs: Sequence[Leg], url: str) -> str:
    """Return the text of an issue or a comment: what is red and why, then the reports."""
    red = [leg for leg in legs if leg.red]
    head = [f"{len(red)} of {len(legs)} are not green in [this run]({url}).", ""]
    for leg in red:
        head += [f"### {code(leg.title)}", "", *(f"- {fact}" for fact in leg.facts), ""]
    text = shorten("\n".join(head), BODY_BYTES // 2)
    reports = [leg for leg in red if leg.report]
    each = (BODY_BYTES - len(text.encode("utf-8"))) // max(1, len(reports)) - 1_000
    for leg in reports:
        text += f"\n#### {code(shorten(leg.title, 200))}\n\n"
        text += "<details><summary>its report</summary>\n\n"
        text += f"{shorten(leg.report, each)}\n\n</details>\n"
    return shorten(text, BODY_BYTES)


def gh(*arguments: str) -> str:
    """Run gh and return what it printed.

    Raises:
        IssueError: it is not there, or failed.
    """
    try:
        done = subprocess.run(["gh", *arguments], check=False, capture_output=True, text=True)
    except OSError as error:
        raise IssueError(f"gh: {error.strerror}") from None
    if done.returncode != 0:
        said = " ".join(done.stderr.split())
        raise IssueError(f"gh {' '.join(arguments[:2])} ended with {done.returncode}: {said}")
    return done.stdout


def update(legs: Sequence[Leg], repository: str, url: str, *, may_close: bool) -> str:
    """Open the issue, comment on it or close it; return what was done.

    It is closed as soon as all is green, so that an open one says that the gate is red now, and
    none has to be looked through for where it stands. A gate that flickers leaves a row of them.

    Args:
        legs: what came of the night.
        repository: OWNER/NAME.
        url: of the workflow's run.
        may_close: False for a run by hand, which may have left out what was red.

    Raises:
        IssueError: gh failed.
    """
    here = ("--repo", repository)
    listed = gh(
        *("issue", "list", *here, "--label", LABEL, "--state", "open"),
        *("--limit", "100", "--json", "number"),
    )
    try:
        numbers = sorted(int(each["number"]) for each in json.loads(listed))
    except (ValueError, KeyError, TypeError):
        raise IssueError(f"gh issue list printed {listed!r}") from None
    red = any(leg.red for leg in legs)
    if not red and not numbers:
        return "all green, and no issue is open"
    green = ", ".join(code(leg.title) for leg in legs)
    text = body(legs, url) if red else f"Green in [this run]({url}): {green}."
    with tempfile.TemporaryDirectory(prefix="red-issue-") as home:
        file = Path(home) / "body.md"
        file.write_text(text, encoding="utf-8")
        if not numbers:
            try:
                gh("label", "create", LABEL, *here, "--color", "B60205")
            except IssueError as error:  # it is there, as a rule; if not, the next call says so
                print(f"red_issue: {error}", file=sys.stderr)
            said = gh(
                *("issue", "create", *here, "--title", TITLE),
                *("--label", LABEL, "--body-file", str(file)),
            )
            return f"opened {said.strip()}"
        number = str(numbers[0])
        gh("issue", "comment", number, *here, "--body-file", str(file))
    if red or not may_close:
        return f"commented on issue {number}"
    gh("issue", "close", number, *here)
    return f"closed issue {number}"


def legs_of(*axes: str) -> int:
    """Return how many legs a matrix of JSON lists has; never none, which would be green."""
    try:
        return max(1, math.prod(len(json.loads(axis)) for axis in axes))
    except (ValueError, TypeError):
        return 1


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python tools/red_issue.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--runners", default="[0]", help="the matrix's JSON list")
    parser.add_argument("--torch", default="[0]", help="likewise")
    parser.add_argument("--result", default="success", help="of the job that ran the gates")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Keep the issue in step; return 0, or 1 after one line that says what was wrong."""
    given = _parse(arguments)
    try:
        at = {name: os.environ[f"GITHUB_{name}"] for name in ("SERVER_URL", "REPOSITORY", "RUN_ID")}
    except KeyError as error:
        print(f"red_issue: {error.args[0]} is not set, as it is in a workflow", file=sys.stderr)
        return 1
    url = f"{at['SERVER_URL']}/{at['REPOSITORY']}/actions/runs/{at['RUN_ID']}"
    legs = read_legs(given.folder, legs_of(given.runners, given.torch), given.result)
    scheduled = os.environ.get("GITHUB_EVENT_NAME") == "schedule"
    try:
        print(f"red_issue: {update(legs, at['REPOSITORY'], url, may_close=scheduled)}")
    except (IssueError, OSError) as error:
        print(f"red_issue: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
