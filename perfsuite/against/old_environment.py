"""Environments with other versions: the one in which a baseline was promoted, or between two.

Each is a virtual environment of the packages that differ, with today's packages behind them. It is
made by uv, from whatever registry that is set up to use, and is kept for the next time.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from perfsuite.records.files import write_new

_PACKAGES = ("torch", "torchvision", "numpy", "pytest", "pytest-benchmark")
"""That are recorded with each run and can be installed; perfsuite itself is the same on both."""
_MADE = "made-by-perfsuite"
_SHOWN = 200  # characters of what uv says


class EnvironmentUnavailableError(RuntimeError):
    """An environment that cannot be had; the message says why, and what to do."""


def changed_packages(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the packages that differ, as requirements for the old versions.

    Raises:
        EnvironmentUnavailableError: Python itself is another.
    """
    old, new = (str(each.get("python")) for each in (then, now))
    if old.split(".")[:2] != new.split(".")[:2]:
        raise EnvironmentUnavailableError(
            f"it was promoted with Python {old}, this is {new}: name an interpreter of that"
            " environment with --perf-confirm-python PATH"
        )
    return [
        f"{name}=={then[name]}"
        for name in _PACKAGES
        if then.get(name) is not None and then[name] != now.get(name)
    ]


def python_with(
    requirements: Sequence[str], cache: Path | None = None, *, constraints: Sequence[str] = ()
) -> Path:
    """Return the interpreter of an environment with these packages, which is made if need be.

    What else they require is taken in the versions of `constraints`, where they name it.

    Raises:
        EnvironmentUnavailableError: uv is not there, or could not install them.
    """
    uv = shutil.which("uv")
    if uv is None:
        raise EnvironmentUnavailableError(
            f"it takes uv to install {', '.join(requirements)}: pip install uv"
        )
    about = (sys.prefix, sys.version, list(requirements), list(constraints))
    folder = (cache or _cache()) / hashlib.sha256(repr(about).encode()).hexdigest()[:16]
    python = folder / "bin" / "python"
    if not (folder / _MADE).exists():
        shutil.rmtree(folder, ignore_errors=True)  # an attempt that did not come to its end
        _run(uv, "venv", "--quiet", "--python", sys.executable, str(folder))
        limits = []
        if constraints:
            write_new(folder / "constraints.txt", "\n".join(constraints).encode())
            limits = ["--constraint", str(folder / "constraints.txt")]
        _run(uv, "pip", "install", "--quiet", "--python", str(python), *limits, *requirements)
        site = sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)})
        ours = sysconfig.get_path("purelib")
        behind = f"import site; site.addsitedir({ours!r})\n"
        write_new(Path(site) / "_behind.pth", behind.encode())
        write_new(folder / _MADE, "\n".join(requirements).encode())
    return python


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "perfsuite" / "environments"


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = " ".join(done.stderr.split())[:_SHOWN] or f"it ended with {done.returncode}"
        raise EnvironmentUnavailableError(f"uv could not make the environment: {said}")
