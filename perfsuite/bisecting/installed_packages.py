"""What is installed in an environment: as its interpreter tells it, or a file of requirements."""

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from packaging.utils import canonicalize_name

from perfsuite.against.old_environment import EnvironmentUnavailableError

# The folder in which it is asked is no part of the environment, whatever lies there.
_LIST = """
import json, sys
from importlib.metadata import distributions
found = {}
for each in distributions(path=[folder for folder in sys.path if folder]):
    name, elsewhere = each.metadata["Name"], each.read_text("direct_url.json")
    if name:
        found.setdefault(name, [each.version, list(each.requires or []), elsewhere])
print(json.dumps({"python": sys.version_info[:2], "packages": found}))
"""
_PIN = re.compile(r"\s*(\w[\w.-]*)\s*(?:\[[^]]*\])?\s*===?\s*([^\s;,]+)")  # hashes may follow it


@dataclass(frozen=True, slots=True, kw_only=True)
class InstalledPackages:
    """What an environment has, by the names of packages.

    Attributes:
        python: the interpreter's major and minor version; None where a file does not tell it.
        versions: of all packages.
        elsewhere: of those that no registry has been asked for, where they came from, such as a
            folder or a commit of git; their version alone does not tell what they are.
        requires: what each requires, as its metadata tell it; empty where a file does not.
    """

    python: tuple[int, int] | None = None
    versions: Mapping[str, str]
    elsewhere: Mapping[str, str] = field(default_factory=dict)
    requires: Mapping[str, Sequence[str]] = field(default_factory=dict)


_About = tuple[str, list[str], str | None]  # version, what it requires, and where it is from


class _Listed(msgspec.Struct):
    python: tuple[int, int]
    packages: dict[str, _About]


def packages_of(environment: str) -> InstalledPackages:
    """Return what is in an environment: that of an interpreter, or pinned in a file.

    Raises EnvironmentUnavailableError where it can be neither.
    """
    path = Path(environment).expanduser()
    if not path.is_file():
        raise EnvironmentUnavailableError(
            f"{environment} is neither an interpreter nor a file of requirements (pip freeze)"
        )
    if os.access(path, os.X_OK):
        return _of_interpreter(environment, path)
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise EnvironmentUnavailableError(
            f"{environment} is no text in UTF-8 ({error}): write it anew with pip freeze"
        ) from None
    lines = text.replace("\\\n", " ").splitlines()
    pins = (_PIN.match(line.partition("#")[0]) for line in lines)
    return InstalledPackages(
        versions={canonicalize_name(pin[1]): pin[2] for pin in pins if pin is not None}
    )


def _of_interpreter(environment: str, path: Path) -> InstalledPackages:
    done = subprocess.run(
        [str(path), "-c", _LIST],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    said = done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"]
    if done.returncode:
        raise EnvironmentUnavailableError(f"{environment} lists no packages: {said[-1]}")
    try:
        listed = msgspec.json.decode(done.stdout, type=_Listed)
    except msgspec.DecodeError:
        raise EnvironmentUnavailableError(
            f"{environment} lists no packages: it is no interpreter of Python, nor a file of"
            " requirements, which must not be executable"
        ) from None
    packages: dict[str, _About] = {}
    for name, about in listed.packages.items():
        packages.setdefault(canonicalize_name(name), about)  # what is imported is listed first
    return InstalledPackages(
        python=listed.python,
        versions={name: version for name, (version, _, _) in packages.items()},
        elsewhere={name: url for name, (_, _, url) in packages.items() if url is not None},
        requires={name: requires for name, (_, requires, _) in packages.items()},
    )
