"""A row of packages: from one environment to another, one package after the other."""

import os
import sys
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from perfsuite.against.comparison import home_of_a_side, start_side
from perfsuite.against.controllers import ServerController
from perfsuite.against.old_environment import EnvironmentUnavailableError, python_with
from perfsuite.bisecting.installed_packages import InstalledPackages, packages_of
from perfsuite.bisecting.package_order import package_steps
from perfsuite.records.git import tree_as_it_is

_OURS = "perfsuite"  # is the same in all
_TOLD = 3
"""Of the packages of a step, how many are told by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageRow:
    """Environments in which packages change from their old versions to the new, step by step.

    Version i has the packages of the first i steps in their new versions, and the others in their
    old ones. What is the same at both ends is the same in all; anything else is this interpreter's.
    """

    config: pytest.Config
    suite: Path
    old: Mapping[str, str]  # versions that differ, by package
    new: Mapping[str, str]
    together: Sequence[tuple[str, ...]]  # the packages of each step
    alike: Mapping[str, str]  # versions that are the same at both ends
    lacking: Sequence[str]  # packages of these that this interpreter has otherwise, or not at all
    left_out: Sequence[str]  # what is not searched and why, a line each
    noun: str = "package"

    @classmethod
    def between(cls, config: pytest.Config, suite: Path, good: str, bad: str) -> "PackageRow":
        """Return the row between two environments, each an interpreter or a file of requirements.

        Raises EnvironmentUnavailableError where one cannot be read, both are the same, or one is
        of another Python.
        """
        here = packages_of(sys.executable)
        # A file does not tell what its packages require; this interpreter's tell it, if roughly.
        old, new = (
            replace(each, requires=each.requires or here.requires)
            for each in (_of_this_python(good, here), _of_this_python(bad, here))
        )
        elsewhere = {*old.elsewhere, *new.elsewhere} - {_OURS}
        both = sorted((old.versions.keys() & new.versions.keys()) - elsewhere - {_OURS})
        changed = [name for name in both if old.versions[name] != new.versions[name]]
        left_out = []
        if alone := (old.versions.keys() ^ new.versions.keys()) - elsewhere - {_OURS}:
            left_out.append(f"in one of both only, and left out: {', '.join(sorted(alone))}")
        if elsewhere:
            names = ", ".join(sorted(elsewhere))
            left_out.append(f"from no registry, and so as this interpreter has it: {names}")
        if not changed:
            raise EnvironmentUnavailableError(
                f"{good} and {bad} have no package in different versions: nothing to search"
                + "".join(f" ({line})" for line in left_out)
            )
        alike = {name: new.versions[name] for name in both if name not in changed}
        return cls(
            config=config,
            suite=suite,
            old={name: old.versions[name] for name in changed},
            new={name: new.versions[name] for name in changed},
            together=package_steps(old, new, changed),
            alike=alike,
            lacking=[name for name in alike if here.versions.get(name) != alike[name]],
            left_out=left_out,
        )

    @property
    def steps(self) -> list[str]:
        return [self._told(names) for names in self.together]

    def header(self) -> list[str]:
        ends = self._at(0), self._at(len(self.together))
        return [f"good: {', '.join(ends[0])}", f"bad:  {', '.join(ends[1])}", *self.left_out]

    def key(self) -> str | None:
        tree = tree_as_it_is(self.config.rootpath)
        about = (self.together, self.old, self.new, self.alike, os.fspath(self.suite), tree)
        return repr(about) if tree else None

    def may_change(self, step: int, imported: Collection[str]) -> bool:  # noqa: ARG002  # whatever it imports
        return True

    def start(self, version: int, stack: ExitStack) -> ServerController:
        lacking = [f"{name}=={self.alike[name]}" for name in self.lacking]
        alike = [f"{name}=={at}" for name, at in self.alike.items()]
        python = python_with([*self._at(version), *lacking], constraints=alike)
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
            for at, names in enumerate(self.together)
            for name in names
        ]

    def _told(self, names: Sequence[str]) -> str:
        told = [f"{name} {self.old[name]} -> {self.new[name]}" for name in names]
        more = len(told) - _TOLD
        return ", ".join(told[:_TOLD]) + f" and {more} more" * (more > 0)


def _of_this_python(environment: str, here: InstalledPackages) -> InstalledPackages:
    """Return what is in an environment, which must be of the Python that others are made with."""
    found = packages_of(environment)
    if found.python not in (None, here.python):
        its, this = (".".join(map(str, each.python or ())) for each in (found, here))
        raise EnvironmentUnavailableError(
            f"{environment} has Python {its}, and this is {this}: environments between both are"
            f" made with this one, so name two of one Python, and start perfsuite with it"
        )
    return found
