"""The command ``perfsuite``: used wrongly, or with nothing to do, it ends with one line.

What each command does is tested beside its module in perfsuite/records and perfsuite/report.
"""

import argparse
import subprocess
import sys
import types
from pathlib import Path

import pytest

import perfsuite.__main__
from perfsuite.__main__ import main


@pytest.mark.parametrize("arguments", [[], ["promote"], ["demote", "run.json"]], ids=str)
def test_the_command_used_wrongly(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: perfsuite" in capsys.readouterr().err


def test_a_shell_that_asks_what_may_follow_is_told_by_argcomplete(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[str] = []

    def autocomplete(parser: argparse.ArgumentParser) -> None:
        told.append(parser.format_usage())
        raise SystemExit(0)

    argcomplete = types.SimpleNamespace(autocomplete=autocomplete)
    monkeypatch.setitem(sys.modules, "argcomplete", argcomplete)
    assert main(["history", "/nowhere"]) == 1
    assert told == []
    monkeypatch.setenv("_ARGCOMPLETE", "1")
    with pytest.raises(SystemExit):
        main(["history", "/nowhere"])
    assert "{init,promote,accept,history,advise,advise-step,bisect,report}" in told[0]
    # argcomplete looks for this in the first 1024 bytes of the module.
    assert b"PYTHON_ARGCOMPLETE_OK" in Path(perfsuite.__main__.__file__).read_bytes()[:1024]


@pytest.mark.slow
def test_the_module_is_a_command(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "perfsuite", "promote", "gone.json"],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "perfsuite: benchmarks: not a suite: it holds neither thresholds.toml nor a benchmark;"
        " name the suite's folder with --suite"
    ]


def test_a_folder_without_runs_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["history", str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"perfsuite: {tmp_path}: no run\n"
