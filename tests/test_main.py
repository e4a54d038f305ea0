"""The command ``perfsuite``: used wrongly, or with nothing to do, it ends with one line.

What each command does is tested beside its module in perfsuite/records and perfsuite/report.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from perfsuite.__main__ import main


@pytest.mark.parametrize("arguments", [[], ["promote"], ["demote", "run.json"]], ids=str)
def test_the_command_used_wrongly(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: perfsuite" in capsys.readouterr().err


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
