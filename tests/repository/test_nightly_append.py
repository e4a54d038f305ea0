"""What the nightly gate's tool does beside running the gate: the history, and another torch."""

import contextlib
import io
import json
import subprocess
from pathlib import Path
from typing import Any

import nightly
import pytest
from suites import edit

from perfsuite.records.schema import read_run

ROOT = Path(__file__).parents[2]
(PUBLISHED,) = (ROOT / "docs" / "runs").glob("cpu-*.json")
RUN = read_run(PUBLISHED)


def leave(out: Path, **changed: Any) -> Path:
    """Write what a gate would have left of the published run."""
    outcome = {"exit_code": 1, "verdict": "red", "reason": "", "hardware": "cpu-amd-epyc-x2"}
    outcome |= {"torch": "2", "commit": "a", "leg": "newest", "runner": None, "failed": []}
    out.mkdir(parents=True)
    (out / "outcome.json").write_text(json.dumps(outcome | changed), encoding="utf-8")
    (out / "run.json").write_bytes(PUBLISHED.read_bytes())
    return out


def appended(history: Path) -> list[str]:
    return sorted(str(path.relative_to(history)) for path in history.rglob("*") if path.is_file())


def test_runs_are_appended_once(tmp_path: Path) -> None:
    outs = [leave(tmp_path / "0"), leave(tmp_path / "1", runner="../gpu box")]
    history = tmp_path / "history"
    command = ["append", str(history), *map(str, outs)]
    assert nightly.main(command) == 0
    at = RUN.started.replace("-", "").replace(":", "")[:15]
    name = f"{at}Z-{RUN.commit[:12]}-torch{RUN.software['torch']}"
    stem = f"{RUN.hardware}/newest/{name}"
    assert appended(history) == [f"{stem}-.._gpu_box.json", f"{stem}.json"]
    assert (history / f"{stem}.json").read_bytes() == PUBLISHED.read_bytes()
    assert nightly.main(command) == 0
    assert len(appended(history)) == 2


def test_nights_of_another_torch_are_kept_apart(tmp_path: Path) -> None:
    outs = [leave(tmp_path / "0"), leave(tmp_path / "1", leg="2.14.*")]
    assert nightly.main(["append", str(tmp_path / "history"), *map(str, outs)]) == 0
    folders = {path.parent.name for path in (tmp_path / "history").rglob("*.json")}
    assert folders == {"newest", "2.14.*"}


def test_another_run_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, history = leave(tmp_path / "0"), tmp_path / "history"
    assert nightly.main(["append", str(history), str(out)]) == 0
    (file,) = appended(history)
    (history / file).write_text("before", encoding="utf-8")
    assert nightly.main(["append", str(history), str(out)]) == 1
    assert "is another run, and is not overwritten" in capsys.readouterr().err
    assert (history / file).read_text(encoding="utf-8") == "before"


@pytest.mark.parametrize(
    ("where", "value", "why"),
    [
        ("outcome.json/verdict", "broken", "a broken night"),
        ("outcome.json/verdict", "fine", "its outcome cannot be read"),
        ("outcome.json/leg", "..", "is no version"),
        ("outcome.json/leg", "a/../../b", "is no version"),
        ("run.json/perfsuite/complete", False, "did not run to its end"),
        ("run.json/perfsuite/hardware/key", "../../elsewhere", "not a valid run"),
        ("run.json/perfsuite/started", "last night", "last night"),
    ],
)
def test_what_is_not_appended(tmp_path: Path, where: str, value: Any, why: str) -> None:
    out, history = leave(tmp_path / "0"), tmp_path / "history"
    file, *keys = where.split("/")
    edit(out / file, keys, value)
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert nightly.main(["append", str(history), str(out)]) == 0
    assert said.getvalue().startswith("nightly: not appended: ")
    assert why in said.getvalue()
    assert not history.exists()


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    out, history = leave(tmp_path / "0"), tmp_path / "history"
    assert nightly.main(["append", str(history), str(out), str(tmp_path / "1")]) == 1
    assert not history.exists()


@pytest.mark.parametrize(
    ("wanted", "installed"),
    [("", []), ("2.14.*", ["torch==2.14.*", "torchvision"]), ("2.14.1", ["torch==2.14.1"])],
)
def test_a_torch_that_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, wanted: str, installed: list[str]
) -> None:
    asked: list[str] = []

    def run(command: list[str], **_: Any) -> "subprocess.CompletedProcess[str]":
        asked.extend(command)
        return subprocess.CompletedProcess(command, returncode=0)

    monkeypatch.setattr(subprocess, "run", run)
    assert nightly.main(["torch", wanted]) == 0
    assert [each for each in asked if each.startswith("torch")][: len(installed)] == installed


@pytest.mark.parametrize("wanted", ["2.14; true", ">=2", "2.14.*\n", "git+file:///x", "٢", " "])
def test_a_torch_that_is_no_version(capsys: pytest.CaptureFixture[str], wanted: str) -> None:
    assert nightly.main(["torch", wanted]) == 1
    assert "is no version such as 2.14.1 or 2.14.*" in capsys.readouterr().err
