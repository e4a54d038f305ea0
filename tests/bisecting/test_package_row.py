"""Packages are searched one after the other, in environments that uv makes of wheels."""

import json
import os
import shutil
import sys
import zipfile
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from projects import CONFTEST, Project, git_in
from test_bisection_session import LEDGER, bisect

from perfsuite.against.old_environment import EnvironmentUnavailableError
from perfsuite.bisecting.bisection_session import log_of
from perfsuite.bisecting.installed_packages import packages_of
from perfsuite.bisecting.package_row import PackageRow

# A uv that makes real environments and unpacks wheels, where there is no real one.
UV = f"""#!{sys.executable}
import os, pathlib, subprocess, sys, zipfile
if sys.argv[1] == "venv":
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", sys.argv[-1]], check=True)
else:
    python, *wanted = sys.argv[5:]
    wanted = wanted[2:] if wanted[0] == "--constraint" else wanted
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


def interpreter(
    folder: Path, python: Sequence[int] = sys.version_info[:2], **packages: Sequence[Any]
) -> str:
    """Return the path of what tells, as an interpreter does, that it has these packages."""
    told = {name: [*about, None][:3] for name, about in packages.items()}
    text = json.dumps({"python": [*python], "packages": told})
    folder.mkdir()
    program = folder / "python"
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\n", encoding="utf-8")
    program.chmod(0o755)
    return str(program)


def test_packages_that_pin_each_other_are_one_step(tmp_path: Path) -> None:
    ends = [
        interpreter(
            tmp_path / str(at),
            Torch=[f"2.{at}.0", [f"cublas=={at}.1", f"cudnn=={at}.2; python_version > '3'"]],
            cublas=[f"{at}.1", []],
            cudnn=[f"{at}.2", []],
            numpy=[f"1.{at}", []],
        )
        for at in (3, 4)
    ]
    config: Any = None
    row = PackageRow.between(config, tmp_path, *ends)
    assert row.steps == [
        "numpy 1.3 -> 1.4",
        "torch 2.3.0 -> 2.4.0, cublas 3.1 -> 4.1, cudnn 3.2 -> 4.2",
    ]
    assert row.header()[0] == "good: numpy==1.3, torch==2.3.0, cublas==3.1, cudnn==3.2"


def test_what_both_have_in_common_is_in_all_environments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = packages_of(sys.executable).versions["pytest"]
    both: dict[str, Sequence[Any]] = {"pytest": [here, []], "common": ["7", []]}
    ends = [interpreter(tmp_path / at, perfsuite=[at, []], kernels=[at, []], **both) for at in "12"]
    config: Any = SimpleNamespace(rootpath=tmp_path)
    row = PackageRow.between(config, tmp_path, *ends)
    made: list[tuple[list[str], list[str]]] = []

    def make(requirements: list[str], *, constraints: list[str]) -> Path:
        made.append((requirements, constraints))
        return tmp_path / "python"

    monkeypatch.setattr("perfsuite.bisecting.package_row.python_with", make)
    monkeypatch.setattr(
        "perfsuite.bisecting.package_row.start_side", lambda *_, **__: nullcontext()
    )
    with ExitStack() as stack:
        for version in (0, 1):
            row.start(version, stack)
    pins = ["common==7", f"pytest=={here}"]
    # What this interpreter has in the same version lies behind each environment.
    assert made == [(["kernels==1", "common==7"], pins), (["kernels==2", "common==7"], pins)]


def test_of_two_spellings_the_one_that_is_imported_counts(tmp_path: Path) -> None:
    """An environment with other versions lies in front of today's, which may be spelt anew."""
    old = interpreter(tmp_path / "old", Jinja2=["2.0", []], jinja2=["3.0", []])
    assert packages_of(old).versions == {"jinja2": "2.0"}


def test_another_python_is_refused(tmp_path: Path) -> None:
    old = interpreter(tmp_path / "old", (3, 8), torch=["1", []])
    new = interpreter(tmp_path / "new", torch=["2", []])
    config: Any = None
    this = ".".join(map(str, sys.version_info[:2]))
    for ends in ([old, new], [new, old]):
        with pytest.raises(
            EnvironmentUnavailableError, match=rf"has Python 3.8, and this is {this}"
        ):
            PackageRow.between(config, tmp_path, *ends)


def test_what_comes_from_no_registry_is_left_out_and_that_is_said(tmp_path: Path) -> None:
    url = '{"url": "file:///home/net", "dir_info": {"editable": true}}'
    old = interpreter(tmp_path / "old", net=["1", [], url], torch=["1", []], aside=["1", []])
    new = interpreter(tmp_path / "new", net=["2", [], url], torch=["2", []], aside=["1", [], url])
    config: Any = None
    row = PackageRow.between(config, tmp_path, old, new)
    assert row.steps == ["torch 1 -> 2"]
    assert row.alike == {}
    assert row.header()[-1] == "from no registry, and so as this interpreter has it: aside, net"
    alone = [interpreter(tmp_path / at, net=[at, [], url]) for at in "12"]
    with pytest.raises(EnvironmentUnavailableError, match=r"nothing to search \(from no .*: net\)"):
        PackageRow.between(config, tmp_path, *alone)


def test_an_environment_is_asked_without_the_folder_that_it_is_asked_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    about = tmp_path / "inplace-9.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: inplace\nVersion: 9\n", "utf-8")
    monkeypatch.chdir(tmp_path)
    assert "inplace" not in packages_of(sys.executable).versions


def test_rounds_are_of_the_code_and_the_options_that_they_were_measured_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = packages_of(sys.executable)
    monkeypatch.setattr("perfsuite.bisecting.bisection_session.packages_of", lambda _: here)
    git_in(tmp_path, "init", "--quiet")
    code, suite = tmp_path / "net.py", tmp_path / "benchmarks"
    suite.mkdir()
    options = SimpleNamespace(
        perf_workload=None,
        perf_epochs=None,
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
    row = PackageRow(
        config=config,
        suite=suite,
        old={},
        new={},
        together=(),
        alike={},
        lacking=(),
        left_out=(),
    )
    seen: list[Path] = []

    def log() -> Path:
        key = row.key()
        assert key is not None
        seen.append(log_of(key, suite, config, bad))
        return seen[-1]

    assert row.key() is None  # before the first commit nobody knows what it is
    for text in ("one", "two"):
        code.write_text(text)
        if text == "two":
            log()
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
    here = replace(here, versions={**here.versions, "timm": "1.0"})
    log()
    here = replace(here, elsewhere={"timm": "another commit of git"})
    log()
    assert len({*seen}) == len(seen)
    options.perf_budget = 2.0  # decides when to stop, and nothing that is measured
    (tmp_path / "run.json").write_text("written by a run")
    assert log() == seen[-2]


def test_an_interpreter_tells_what_it_has_and_other_things_are_refused(tmp_path: Path) -> None:
    here = packages_of(sys.executable)
    assert here.versions["pytest"] == pytest.__version__
    assert here.python == sys.version_info[:2]
    assert any(each.startswith("pluggy") for each in here.requires["pytest"])
    with pytest.raises(EnvironmentUnavailableError, match="neither an interpreter nor a file"):
        packages_of(str(tmp_path / "gone"))
    for program in ("/bin/false", "/bin/true", "/bin/echo"):
        with pytest.raises(EnvironmentUnavailableError, match="lists no packages"):
            packages_of(program)
    (tmp_path / "utf16.txt").write_text("torch==2.13.1", encoding="utf-16")
    with pytest.raises(EnvironmentUnavailableError, match=r"utf16.txt is no text in UTF-8"):
        packages_of(str(tmp_path / "utf16.txt"))


def test_hashes_and_extras_are_no_part_of_a_version(tmp_path: Path) -> None:
    path = tmp_path / "locked.txt"
    path.write_text(
        "torch[opt]==2.13.1+cpu \\\n    --hash=sha256:0a \\\n    --hash=sha256:0b\n"
        "numpy==2.4 --hash=sha256:0c # why\n--extra-index-url=https://a.invalid/?b==c\nodd==\n"
    )
    assert packages_of(str(path)).versions == {"torch": "2.13.1+cpu", "numpy": "2.4"}
