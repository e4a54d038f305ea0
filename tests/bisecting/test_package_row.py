"""Packages are searched one after the other, in environments that uv makes of wheels."""

import os
import shutil
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from projects import CONFTEST, Project, git_in
from test_bisection_session import LEDGER, bisect

from perfsuite.against.old_environment import EnvironmentUnavailableError
from perfsuite.bisecting.bisection_session import log_of
from perfsuite.bisecting.package_row import PackageRow, installed

# A uv that makes real environments and unpacks wheels, where there is no real one.
UV = f"""#!{sys.executable}
import os, pathlib, subprocess, sys, zipfile
if sys.argv[1] == "venv":
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", sys.argv[-1]], check=True)
else:
    python, *wanted = sys.argv[5:]
    site = next(pathlib.Path(python).parents[1].glob("lib/python*/site-packages"))
    for each in wanted:
        wheel = each.replace("==", "-") + "-py3-none-any.whl"
        zipfile.ZipFile(pathlib.Path(os.environ["UV_FIND_LINKS"]) / wheel).extractall(site)
"""


def wheel(folder: Path, name: str, version: str, code: str) -> None:
    about = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": code,
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in (*files, f"{about}/RECORD"))
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as file:
        for path, text in {**files, f"{about}/RECORD": record}.items():
            file.writestr(path, text)


@pytest.mark.slow
def test_the_package_that_changed_the_counts_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for version in ("1.0", "2.0"):
        wheel(wheels, "aside", version, "")
        wheel(wheels, "kernels", version, f"PRODUCTS = {5 if version == '2.0' else 2}\n")
        pins = f"aside=={version}\nkernels=={version}\n"
        (tmp_path / f"{version}.txt").write_text(pins, encoding="utf-8")
    project = Project(tmp_path / "packages")
    project.write("src/mynet/__init__.py", "from kernels import PRODUCTS\n")
    project.write("benchmarks/conftest.py", CONFTEST)
    project.write("benchmarks/test_counts.py", LEDGER)
    project.environment |= {
        "UV_FIND_LINKS": str(wheels),
        "UV_NO_INDEX": "1",
        "UV_OFFLINE": "1",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    if shutil.which("uv") is None:
        uv = tmp_path / "bin" / "uv"
        uv.parent.mkdir()
        uv.write_text(UV, encoding="utf-8")
        uv.chmod(0o755)
        project.environment["PATH"] = f"{uv.parent}{os.pathsep}{os.environ['PATH']}"
    ends = [str(tmp_path / f"{version}.txt") for version in ("1.0", "2.0")]
    result = bisect(project, "--packages", *ends, "-k", "ledger")
    result.ends_with(0)
    result.line("counts change at kernels 1.0 -> 2.0")
    result.line("good: aside==1.0, kernels==1.0")
    assert project.left_behind() == []


def test_what_differs_is_a_step_each_and_perfsuite_is_none(tmp_path: Path) -> None:
    old, new = tmp_path / "old.txt", tmp_path / "new.txt"
    old.write_text("Torch==2.13.1\nnumpy == 2.4 ; python_version > '3'\nperfsuite==1\ngone==1\n")
    new.write_text("# new\ntorch==2.14.0\nnumpy==2.4\nperfsuite==2\n-e .\ncame==1\n")
    config: Any = None
    row = PackageRow.between(config, tmp_path, str(old), str(new))
    assert row.steps == ["torch 2.13.1 -> 2.14.0"]
    assert row.header()[-1] == "in one of both only, and left out: came, gone"
    with pytest.raises(EnvironmentUnavailableError, match="no package in different versions"):
        PackageRow.between(config, tmp_path, str(old), str(old))


def test_rounds_are_of_the_code_and_the_options_that_they_were_measured_with(
    tmp_path: Path,
) -> None:
    git_in(tmp_path, "init", "--quiet")
    code, suite = tmp_path / "net.py", tmp_path / "benchmarks"
    suite.mkdir()
    options = SimpleNamespace(
        perf_workload=None,
        perf_parallel=None,
        perf_data="synthetic",
        perf_device="cpu",
        perf_budget=1.0,
        override_ini=None,
        plugins=None,
        importmode="prepend",
    )
    config: Any = SimpleNamespace(rootpath=tmp_path, option=options)
    bad: Any = SimpleNamespace(hardware={}, software={})
    row = PackageRow(config=config, suite=suite, old={}, new={}, left_out=())
    seen: list[Path] = []

    def log() -> Path:
        seen.append(log_of(row, suite, config, bad))
        return seen[-1]

    for text in ("one", "two"):
        code.write_text(text)
        log()  # where it is committed in nothing yet, and then changed
        git_in(tmp_path, "add", "--all")
        git_in(tmp_path, "commit", "--quiet", "--message", text)
        log()
    code.write_text("edited")
    log()
    (tmp_path / "new.py").write_text("new")
    log()
    (tmp_path / "new.py").write_text("edited")
    log()
    options.perf_workload = "another"
    log()
    options.override_ini = ["pythonpath=src"]
    log()
    assert len({*seen}) == len(seen)
    options.perf_budget = 2.0  # decides when to stop, and nothing that is measured
    (tmp_path / "run.json").write_text("written by a run")
    assert log() == seen[-2]


def test_an_interpreter_tells_what_it_has_and_other_things_are_refused(tmp_path: Path) -> None:
    assert installed(sys.executable)["pytest"] == pytest.__version__
    with pytest.raises(EnvironmentUnavailableError, match="neither an interpreter nor a file"):
        installed(str(tmp_path / "gone"))
    for program in ("/bin/false", "/bin/true", "/bin/echo"):
        with pytest.raises(EnvironmentUnavailableError, match="lists no packages"):
            installed(program)
    (tmp_path / "utf16.txt").write_text("torch==2.13.1", encoding="utf-16")
    with pytest.raises(EnvironmentUnavailableError, match=r"utf16.txt is no text in UTF-8"):
        installed(str(tmp_path / "utf16.txt"))


def test_hashes_and_extras_are_no_part_of_a_version(tmp_path: Path) -> None:
    path = tmp_path / "locked.txt"
    path.write_text(
        "torch[opt]==2.13.1+cpu \\\n    --hash=sha256:0a \\\n    --hash=sha256:0b\n"
        "numpy==2.4 --hash=sha256:0c # why\n--extra-index-url=https://a.invalid/?b==c\nodd==\n"
    )
    assert installed(str(path)) == {"torch": "2.13.1+cpu", "numpy": "2.4"}
