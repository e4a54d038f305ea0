"""What follows GOOD is BAD, or files of the suite, and the rest goes to pytest."""

from pathlib import Path
from typing import Any

import pytest

from perfsuite.__main__ import main

FILE = "speed/test_step.py"


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
    given: list[str],
    expected: tuple[str, list[str], list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
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


def test_a_file_of_no_suite_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("benchmarks").mkdir()
    assert main(["bisect", "v1", "v2", "gone.py"]) == 1
    assert capsys.readouterr().err == "perfsuite: gone.py: no file of benchmarks in benchmarks\n"
