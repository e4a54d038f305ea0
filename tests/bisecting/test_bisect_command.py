"""What is asked of a bisection on the command line, and how it is answered there."""

from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from perfsuite.__main__ import main
from perfsuite.against.comparison import ComparisonError
from perfsuite.bisecting.bisection_session import BisectionSession
from perfsuite.bisecting.rounds import BisectionError
from perfsuite.bisecting.searching import Finding

FILE = "speed/test_step.py"


def newer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let argparse match as from Python 3.12.7 on: nothing is empty right before an option."""
    name = "_match_arguments_partial"
    older: Any = getattr(ArgumentParser, name)

    def match(self: ArgumentParser, actions: Any, pattern: str) -> list[int]:
        found: list[int] = older(self, actions, pattern)
        while pattern[sum(found) :].startswith("O") and found and not found[-1]:
            found.pop()
        return found

    monkeypatch.setattr(ArgumentParser, name, match)


@pytest.mark.parametrize("prepare", [lambda _: None, newer], ids=["installed", "newer"])
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["-k", "step"], ("HEAD", [], ["-k", "step"])),
        (["v2", "-k", "step"], ("v2", [], ["-k", "step"])),
        ([FILE, "-k", "step"], ("HEAD", [FILE], ["-k", "step"])),
        (["v2", FILE, f"{FILE}::test_step[a]"], ("v2", [FILE, f"{FILE}::test_step[a]"], [])),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_files_of_the_suite_are_told_from_the_bad_end(
    prepare: Callable[[pytest.MonkeyPatch], None],
    given: list[str],
    expected: tuple[str, list[str], list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prepare(monkeypatch)
    monkeypatch.chdir(tmp_path)
    Path("speed").mkdir()
    Path(FILE).touch()
    asked: dict[str, Any] = {}

    def search(row: Any, suite: Path, named: list[str], **others: Any) -> int:
        asked.update(row=row, suite=suite, files=named, **others)
        return 0

    module = "perfsuite.bisecting.bisection_session"
    monkeypatch.setattr(f"{module}.bisect", search)
    monkeypatch.setattr(f"{module}.commit_row", lambda *ends: ends)
    assert main(["bisect", "v1", *given, "--suite=speed"]) == 0
    assert asked["row"] == ("v1", expected[0])
    assert (asked["files"], asked["arguments"]) == expected[1:]


def test_an_answer_that_cannot_be_written_is_told_all_the_same(tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.touch()
    finding = Finding(key="test_a.py::test_a", open="too noisy")
    row = SimpleNamespace(header=lambda: ["good: a"], steps=[], noun="commit")
    said: list[str] = []
    session: Any = SimpleNamespace(
        _kept=taken,
        _again=False,
        _row=row,
        _findings=[finding],
        _output=taken,
        _unsearched="",
    )
    reporter: Any = SimpleNamespace(section=said.append, write_line=said.append)
    BisectionSession.pytest_terminal_summary(session, reporter)
    assert "  no answer: too noisy" in said
    assert any(line.endswith("no commit of git tells what the code is") for line in said)
    assert said[-1].startswith("perfsuite: the answer could not be written: ")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (BisectionError("the good end failed"), "the good end failed"),
        (ComparisonError("not two trees"), "not two trees"),
        (KeyboardInterrupt(), "it was broken off; run it again to go on from here"),
        (OSError("the disk is full"), "it was broken off; run it again to go on from here"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_search_without_an_answer_is_told_with_what_it_had_found(
    tmp_path: Path, error: BaseException, told: str
) -> None:
    def broken(finding: Finding) -> None:
        finding.steps, finding.counted = [1, 2], [(2, 2, ["+1 forward: cast (1 -> 2)"])]
        raise error

    row = SimpleNamespace(header=list, steps=["one", "two"], noun="commit", advice=lambda *_: None)
    session: Any = SimpleNamespace(
        _findings=[],
        _unsearched="",
        _row=row,
        _kept=tmp_path / "nothing was measured",
        _output=tmp_path / "out",
        _searcher=SimpleNamespace(search=broken),
        _status=SimpleNamespace(clear=lambda: None),
    )
    item: Any = SimpleNamespace(key="test_a.py::test_a")
    with pytest.raises((pytest.fail.Exception, KeyboardInterrupt, OSError)):
        BisectionSession.search(session, item)
    reporter: Any = SimpleNamespace(section=lambda _: None, write_line=lambda _: None)
    BisectionSession.pytest_terminal_summary(session, reporter)
    lines = (tmp_path / "out" / "bisect.md").read_text("utf-8").splitlines()
    assert lines[-4:] == [
        "    a",
        "      counts change at two",
        "        +1 forward: cast (1 -> 2)",
        f"      no answer: {told}",
    ]


def test_a_file_of_no_suite_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("benchmarks").mkdir()
    assert main(["bisect", "v1", "v2", "gone.py"]) == 1
    assert capsys.readouterr().err == "perfsuite: gone.py: no file of benchmarks in benchmarks\n"


@pytest.mark.parametrize(
    ("searched", "items", "exit_code", "expected"),
    [(2, 2, 0, 0), (1, 2, 0, 1), (0, 2, 0, 1), (0, 0, 0, 1), (1, 2, 2, 2)],
)
def test_only_where_every_benchmark_was_searched_is_the_session_green(
    searched: int, items: int, exit_code: int, expected: int
) -> None:
    session: Any = SimpleNamespace(
        items=[None] * items,
        exitstatus=exit_code,
        config=SimpleNamespace(option=SimpleNamespace(collectonly=False)),
    )
    ours: Any = SimpleNamespace(_findings=[None] * searched, _unsearched="", _kept=None)
    BisectionSession.pytest_sessionfinish(ours, session)
    assert session.exitstatus == expected
    said: list[str] = []
    ours._findings = []  # what was found is told besides
    reporter: Any = SimpleNamespace(write_line=said.append)
    BisectionSession.pytest_terminal_summary(ours, reporter)
    told = f"bisect: searched {searched} of {items} benchmarks, so the session fails"
    assert said == [told] * (expected == 1)
