"""The issue that says whether the nightly gate is red: one at a time, and never a wrong green."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
ALONE = (sys.executable, "-I", "-S")
FAILED = "test_steps.py::test_a[$(reboot)]"

# Stands in for gh: records how it was called and with what text, and answers as it is told to.
GH = """#!{python}
import json, os, pathlib, sys

home = pathlib.Path(os.environ["FAKE_GH"])
given = sys.argv[1:]
text = None
if "--body-file" in given:
    at = given.index("--body-file")
    text = pathlib.Path(given[at + 1]).read_text(encoding="utf-8")
    del given[at : at + 2]
with (home / "calls").open("a", encoding="utf-8") as calls:
    calls.write(json.dumps([given, text]) + "\\n")
answers = json.loads((home / "answers").read_text(encoding="utf-8"))
answer = answers.get(" ".join(given[:2]), "")
if answer is None:
    sys.exit("gh: no\\nway")
print(answer)
"""


class GitHub:
    """A repository on GitHub, and the folders that a night left behind."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.nights = home / "nights"
        (home / "bin").mkdir()
        gh = home / "bin" / "gh"
        gh.write_text(GH.format(python=sys.executable), encoding="utf-8")
        gh.chmod(0o755)
        self.answers: dict[str, str | None] = {
            "issue list": "[]",
            "issue create": "https://github.example/issues/7",
        }
        self.event = "schedule"

    def leg(self, name: str, report: str = "the report", **changed: Any) -> Path:
        """Write what a gate leaves behind, green unless it is said otherwise."""
        outcome = {"exit_code": 0, "verdict": "green", "reason": "", "hardware": "a100-x1"}
        outcome |= {"torch": "2.14.1", "commit": "4944b5a", "runner": "box", "failed": []}
        folder = self.nights / name
        (folder / "report").mkdir(parents=True)
        (folder / "outcome.json").write_text(json.dumps(outcome | changed), encoding="utf-8")
        (folder / "report" / "report.md").write_text(report, encoding="utf-8")
        return folder

    def red(self, name: str, report: str = "the report") -> Path:
        return self.leg(name, report, exit_code=1, verdict="red", failed=[FAILED])

    def run(self, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        (self.home / "answers").write_text(json.dumps(self.answers), encoding="utf-8")
        outside = {k: v for k, v in os.environ.items() if not k.startswith("GITHUB")}
        inside = {
            "PATH": str(self.home / "bin"),
            "FAKE_GH": str(self.home),
            "GITHUB_SERVER_URL": "https://github.example",
            "GITHUB_REPOSITORY": "us/ours",
            "GITHUB_RUN_ID": "42",
            "GITHUB_EVENT_NAME": self.event,
        }
        return subprocess.run(
            # Without any package: nothing is installed where GitHub runs it.
            [*ALONE, str(ROOT / "tools" / "red_issue.py"), str(self.nights), *arguments],
            env=outside | inside | environment,
            check=False,
            capture_output=True,
            text=True,
        )

    def calls(self) -> list[str]:
        """Return how gh was called: the command, and what follows the repository."""
        given = [call for call, _ in self._calls()]
        assert all(call[call.index("--repo") + 1] == "us/ours" for call in given)
        return [
            " ".join(word for word in call if word not in ("--repo", "us/ours")) for call in given
        ]

    def text(self) -> str:
        """Return the one text that was sent."""
        (text,) = [text for _, text in self._calls() if text is not None]
        return text

    def _calls(self) -> list[tuple[list[str], str | None]]:
        lines = (self.home / "calls").read_text(encoding="utf-8").splitlines()
        return [(call, text) for call, text in map(json.loads, lines)]


@pytest.fixture
def github(tmp_path: Path) -> GitHub:
    return GitHub(tmp_path)


LIST = "issue list --label perf-regression --state open --limit 100 --json number"
CREATE = "issue create --title The nightly performance gate is red --label perf-regression"
LABEL = "label create perf-regression --color B60205"
TWO = ("--runners", '[["self-hosted","gpu"],["other"]]')


def test_red_opens_an_issue(github: GitHub) -> None:
    github.red("0", report="red report")
    github.leg("1", report="green report")
    done = github.run(*TWO)
    assert (done.returncode, done.stdout) == (
        0,
        "red_issue: opened https://github.example/issues/7\n",
    )
    assert github.calls() == [LIST, LABEL, CREATE]
    text = github.text()
    assert (
        "1 of 2 are not green in [this run](https://github.example/us/ours/actions/runs/42)" in text
    )
    assert "### `a100-x1, torch 2.14.1, box`" in text
    assert f"- did not pass: `{FAILED}`" in text
    assert "red report" in text
    assert "green report" not in text


def test_a_label_that_is_there_is_no_hindrance(github: GitHub) -> None:
    github.red("0")
    github.answers["label create"] = None
    assert github.run().returncode == 0
    assert github.calls() == [LIST, LABEL, CREATE]


def test_red_again_comments_on_the_issue_that_is_open(github: GitHub) -> None:
    github.red("0")
    github.answers["issue list"] = '[{"number": 12}, {"number": 7}]'
    assert github.run().returncode == 0
    assert github.calls() == [LIST, "issue comment 7"]
    assert FAILED in github.text()


def test_green_closes_the_issue(github: GitHub) -> None:
    github.leg("0")
    github.answers["issue list"] = '[{"number": 7}]'
    assert github.run().returncode == 0
    assert github.calls() == [LIST, "issue comment 7", "issue close 7"]
    assert github.text().startswith("Green in [this run]")
    assert github.text().endswith(": `a100-x1, torch 2.14.1, box`.")


def test_green_by_hand_leaves_the_issue_open(github: GitHub) -> None:
    """It may have been run without what was red."""
    github.leg("0")
    github.answers["issue list"] = '[{"number": 7}]'
    github.event = "workflow_dispatch"
    assert github.run().returncode == 0
    assert github.calls() == [LIST, "issue comment 7"]


def test_green_and_no_issue_is_nothing_to_say(github: GitHub) -> None:
    github.leg("0")
    assert github.run().stdout == "red_issue: all green, and no issue is open\n"
    assert github.calls() == [LIST]


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"verdict": "broken", "reason": "no run", "exit_code": 4}, "- verdict: `broken` `no run`"),
        ({"exit_code": 1}, "### `a100-x1"),
        ({"failed": ["test_b"]}, "- did not pass: `test_b`"),
        ({"failed": None}, "its outcome cannot be read"),
        ({"verdict": None}, "### `a100-x1"),
        ({"hardware": 3}, "its outcome cannot be read"),
    ],
)
def test_what_is_not_plainly_green_is_red(
    github: GitHub, changed: dict[str, Any], why: str
) -> None:
    github.leg("0", **changed)
    assert github.run().returncode == 0
    assert github.calls()[-1] == CREATE
    assert why in github.text()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"{}"])
def test_an_outcome_that_is_damaged_is_red(github: GitHub, content: bytes) -> None:
    (github.leg("0") / "outcome.json").write_bytes(content)
    assert github.run().returncode == 0
    assert "### `0`\n\n- its outcome cannot be read" in github.text()


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ((*TWO, "--torch", '["", "2.14.*"]'), "1 of 4 left an outcome"),
        (("--runners", "no JSON", "--result", "failure"), "it ended with 'failure'"),
        (("--result", "cancelled"), "it ended with 'cancelled'"),
    ],
)
def test_a_leg_that_is_missing_is_red(github: GitHub, arguments: tuple[str, ...], why: str) -> None:
    github.leg("0")
    assert github.run(*arguments).returncode == 0
    assert why in github.text()


def test_a_night_that_left_nothing_is_red(github: GitHub) -> None:
    assert github.run().returncode == 0
    assert "0 of 1 left an outcome" in github.text()


def test_reports_are_cut_to_what_github_takes(github: GitHub) -> None:
    github.red("0", report="ä" * 70_000)
    github.red("1", report="ö" * 70_000)
    assert github.run(*TWO).returncode == 0
    assert len(github.text().encode("utf-8")) < 65_536
    assert github.text().count("(cut here: ") == 2
    assert min(github.text().count(letter) for letter in "äö") > 10_000


def test_many_legs_are_cut_to_what_github_takes(github: GitHub) -> None:
    for number in range(200):
        github.red(str(number), report="a" * 2000)
    assert github.run().returncode == 0
    assert len(github.text().encode("utf-8")) < 65_536


def test_nothing_that_a_night_says_of_itself_is_markup(github: GitHub) -> None:
    hostile = "`@team`</summary>\n# hi <b>"
    github.leg("0", verdict="red", exit_code=1, runner=hostile, failed=[hostile], reason=hostile)
    assert github.run().returncode == 0
    text = github.text()
    assert "\n# hi" not in text
    outside = "".join(text.split("`")[::2])  # of what is shown as code
    assert "@team" not in outside
    assert outside.count("</summary>") == 1
    assert "<b>" not in outside


@pytest.mark.parametrize("command", ["issue list", "issue create"])
def test_gh_that_fails(github: GitHub, command: str) -> None:
    github.red("0")
    github.answers[command] = None
    done = github.run()
    assert done.returncode == 1
    assert done.stderr == f"red_issue: gh {command} ended with 1: gh: no way\n"


def test_gh_that_is_not_there_or_answers_nonsense(github: GitHub) -> None:
    github.red("0")
    assert github.run(PATH="/nowhere").stderr == "red_issue: gh: No such file or directory\n"
    github.answers["issue list"] = "none"
    assert github.run().stderr == "red_issue: gh issue list printed 'none\\n'\n"


def test_what_a_bisection_found_stands_in_the_issue(github: GitHub) -> None:
    folder = github.red("0") / "bisections" / "0"
    folder.mkdir(parents=True)
    answer = "# Bisection\n\n    step_s\n      1.2x at 0123abc Use `another` kernel (99.8%)\n"
    (folder / "bisect.md").write_text(answer, encoding="utf-8")
    github.run()
    assert "- bisected: `1.2x at 0123abc Use 'another' kernel (99.8%)`" in github.text()
