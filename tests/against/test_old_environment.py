"""The environment of a baseline, made anew: what is installed, what is kept, and what cannot be."""

import subprocess
import sys
from pathlib import Path

import pytest

from perfsuite.against.old_environment import (
    EnvironmentUnavailableError,
    changed_packages,
    python_with,
)

NOW = {"python": "3.11.7", "torch": "2.15.0", "numpy": "2.4.6", "cudnn": 91000, "perfsuite": "2"}

# A uv that makes real environments, and "installs" a module named after each requirement.
UV = f"""#!{sys.executable}
import pathlib, subprocess, sys
log = pathlib.Path(__file__).with_name("log")
log.write_text(log.read_text() + " ".join(sys.argv[1:]) + "\\n" if log.exists() else "made\\n")
if sys.argv[1] == "venv":
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", sys.argv[-1]], check=True)
else:
    python, *wanted = sys.argv[5:]
    if "torch==0" in wanted:
        sys.exit("error: no version of torch==0")
    site = next(pathlib.Path(python).parents[1].glob("lib/python*/site-packages"))
    for each in wanted:
        name, _, version = each.partition("==")
        (site / f"{{name}}.py").write_text(f"__version__ = {{version!r}}")
"""


@pytest.fixture
def uv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "uv").write_text(UV, encoding="utf-8")
    (folder / "uv").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    return folder


def test_what_differs_is_asked_for_in_its_old_version() -> None:
    then = NOW | {"torch": "2.14.1", "cudnn": 90000, "perfsuite": "1", "torchvision": None}
    assert changed_packages(then, NOW) == ["torch==2.14.1"]
    assert changed_packages(NOW, NOW) == []


def test_another_python_is_refused_with_the_remedy() -> None:
    with pytest.raises(EnvironmentUnavailableError, match=r"3\.10\.1, this is 3\.11\.7: name an"):
        changed_packages(NOW | {"python": "3.10.1"}, NOW)
    assert changed_packages(NOW | {"python": "3.11.2"}, NOW) == []


def test_the_old_package_is_before_those_of_today_and_is_installed_once(
    uv: Path, tmp_path: Path
) -> None:
    python = python_with(["torch==2.14.1"], tmp_path / "cache")
    code = "import torch, msgspec; print(torch.__version__)"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "2.14.1\n"
    said = (uv / "log").read_text("utf-8")
    assert python_with(["torch==2.14.1"], tmp_path / "cache") == python
    assert (uv / "log").read_text("utf-8") == said
    assert python_with(["torch==2.13.0"], tmp_path / "cache") != python


def test_what_cannot_be_installed_is_told_and_tried_again_the_next_time(
    uv: Path, tmp_path: Path
) -> None:
    for _ in range(2):
        with pytest.raises(EnvironmentUnavailableError, match="error: no version of torch==0"):
            python_with(["torch==0"], tmp_path / "cache")
    assert (uv / "log").read_text("utf-8").count("pip install") == 2


def test_without_uv_it_is_told_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EnvironmentUnavailableError, match="pip install uv"):
        python_with(["torch==2.14.1"], tmp_path / "cache")


def test_what_else_is_required_is_taken_in_the_versions_that_are_given(
    uv: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    python = python_with(["torch==2.14.1"], cache, constraints=["numpy==2.4", "jinja2==3"])
    limits = (uv / "log").read_text("utf-8").partition("--constraint ")[2].split()[0]
    assert Path(limits).read_text("utf-8").splitlines() == ["numpy==2.4", "jinja2==3"]
    assert python_with(["torch==2.14.1"], cache) != python
