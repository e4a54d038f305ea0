"""A row of packages: from one environment to another, one package after the other."""

import os
import re
import subprocess
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from perfsuite.against.comparison import home_of_a_side, start_side
from perfsuite.against.controllers import ServerController
from perfsuite.against.old_environment import EnvironmentUnavailableError, python_with
from perfsuite.records.git import tree_as_it_is

_LIST = """
import json
from importlib.metadata import distributions
print(json.dumps({each.name: each.version for each in distributions() if each.name}))
"""
_PIN = re.compile(r"\s*(\w[\w.-]*)\s*(?:\[[^]]*\])?\s*===?\s*([^\s;,]+)")  # hashes may follow it
_OURS = "perfsuite"  # is the same in all


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageRow:
    """Environments in which one package after the other is changed from its old version to the new.

    Version i has the first i packages in their new versions, and the others in their old ones; what
    is the same in both environments is this interpreter's.
    """

    config: pytest.Config
    suite: Path
    old: Mapping[str, str]  # versions that differ, by package
    new: Mapping[str, str]
    left_out: Sequence[str]  # packages that only one of both has
    noun: str = "package"

    @classmethod
    def between(cls, config: pytest.Config, suite: Path, good: str, bad: str) -> "PackageRow":
        """Return the row between two environments, each an interpreter or a file of requirements.

        Raises EnvironmentUnavailableError where one cannot be read, or both are the same.
        """
        old, new = installed(good), installed(bad)
        changed = sorted(name for name in old.keys() & new.keys() if old[name] != new[name])
        changed = [name for name in changed if name != _OURS]
        if not changed:
            raise EnvironmentUnavailableError(
                f"{good} and {bad} have no package in different versions: nothing to search"
            )
        return cls(
            config=config,
            suite=suite,
            old={name: old[name] for name in changed},
            new={name: new[name] for name in changed},
            left_out=sorted(old.keys() ^ new.keys()),
        )

    @property
    def steps(self) -> list[str]:
        return [f"{name} {self.old[name]} -> {self.new[name]}" for name in self.old]

    def header(self) -> list[str]:
        lines = [f"good: {', '.join(self._at(0))}", f"bad:  {', '.join(self._at(len(self.old)))}"]
        if self.left_out:
            lines.append(f"in one of both only, and left out: {', '.join(self.left_out)}")
        return lines

    def key(self) -> str:
        return repr((self.steps, os.fspath(self.suite), tree_as_it_is(self.config.rootpath)))

    def may_change(self, step: int, imported: Collection[str]) -> bool:  # noqa: ARG002  # whatever it imports
        return True

    def start(self, version: int, stack: ExitStack) -> ServerController:
        python = python_with(self._at(version))
        side = start_side(
            "after",
            str(python),
            config=self.config,
            suite=self.suite,
            top=self.config.rootpath.resolve(),
            checkout=None,
            home=home_of_a_side(stack),
            name=f"with {', '.join(self._at(version))}",
        )
        return stack.enter_context(side)

    def misplaced(self, loaded: Mapping[str, list[str]]) -> str | None:  # noqa: ARG002  # one tree
        return None

    def advice(self, step: int, key: str, figure: str) -> str | None:  # noqa: ARG002  # none
        return None

    def _at(self, version: int) -> list[str]:
        """Return the requirements of a version."""
        return [
            f"{name}=={(self.new if at < version else self.old)[name]}"
            for at, name in enumerate(self.old)
        ]


def installed(environment: str) -> dict[str, str]:
    """Return the versions in an environment: those of an interpreter, or pinned in a file.

    Raises EnvironmentUnavailableError where it can be neither.
    """
    path = Path(environment).expanduser()
    if not path.is_file():
        raise EnvironmentUnavailableError(
            f"{environment} is neither an interpreter nor a file of requirements (pip freeze)"
        )
    if os.access(path, os.X_OK):
        command = [str(path), "-c", _LIST]
        done = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", check=False
        )
        said = done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"]
        try:
            if done.returncode:
                raise EnvironmentUnavailableError(f"{environment} lists no packages: {said[-1]}")
            found = msgspec.json.decode(done.stdout, type=dict[str, str])
        except msgspec.DecodeError:
            raise EnvironmentUnavailableError(
                f"{environment} lists no packages: it is no interpreter of Python, nor a file of"
                " requirements, which must not be executable"
            ) from None
    else:
        try:
            text = path.read_text("utf-8-sig")
        except UnicodeDecodeError as error:
            raise EnvironmentUnavailableError(
                f"{environment} is no text in UTF-8 ({error}): write it anew with pip freeze"
            ) from None
        lines = text.replace("\\\n", " ").splitlines()
        pins = (_PIN.match(line.partition("#")[0]) for line in lines)
        found = {pin[1]: pin[2] for pin in pins if pin is not None}
    return {name.lower().replace("_", "-"): version for name, version in found.items()}
