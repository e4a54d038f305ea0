"""The README's figures are those of the published run, and of no failed one."""

import json
from pathlib import Path

import figures
import pytest

ROOT = Path(__file__).parents[2]
# The record of sabotage lies beside the runs and is none.
KEPT = (ROOT / "docs" / "runs").glob("*.json")
RUNS = [path for path in KEPT if not path.name.startswith(("ladder-", "sabotage"))]
README = ROOT / "README.md"


@pytest.fixture
def readme(tmp_path: Path) -> Path:
    copy = tmp_path / "README.md"
    copy.write_text(README.read_text(encoding="utf-8"), encoding="utf-8")
    return copy


def test_the_readme_holds_what_the_command_writes(readme: Path) -> None:
    (published,) = RUNS
    assert figures.main([str(published), str(readme)]) == 0
    assert readme.read_text(encoding="utf-8") == README.read_text(encoding="utf-8")


def test_a_failed_run_is_not_shown(
    tmp_path: Path, readme: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = json.loads(RUNS[0].read_text(encoding="utf-8"))
    key = next(iter(document["perfsuite"]["items"]))
    document["perfsuite"]["items"][key] = "failed"
    failed = tmp_path / "failed.json"
    failed.write_text(json.dumps(document), encoding="utf-8")
    before = readme.read_text(encoding="utf-8")
    assert figures.main([str(failed), str(readme)]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"{key} failed" in said
    assert readme.read_text(encoding="utf-8") == before


def test_a_readme_without_a_place_for_them_is_left_alone(tmp_path: Path) -> None:
    plain = tmp_path / "README.md"
    plain.write_text("nothing here", encoding="utf-8")
    assert figures.main([str(RUNS[0]), str(plain)]) == 1
    assert plain.read_text(encoding="utf-8") == "nothing here"
