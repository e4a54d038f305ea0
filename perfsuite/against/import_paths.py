"""Whose code a file is, and where it lies on the other side: two trees, and what is in neither.

Nothing but the standard library: it is loaded before perfsuite is, which may be under test.
"""

import importlib.util
import os
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

ROOTS = ("src", "lib", "python")
"""Folders of a project in which its packages lie, where they do not lie at its top."""


class Trees:
    """The working tree `top`, and the checkout beside it; None where both sides share the tree.

    `suite` is that of the working tree on both sides, relative to either; None where each side has
    its own, which then is code under test as well. `installed` are folders of installed packages,
    such as `.venv`.
    """

    def __init__(
        self, top: str, checkout: str | None, suite: str | None, installed: Sequence[str] = ()
    ) -> None:
        self.top = Path(top)
        self.checkout = None if checkout is None else Path(checkout)
        self._trees = [self.top] if self.checkout is None else [self.top, self.checkout]
        self._suites = [] if suite is None else [tree / suite for tree in self._trees]
        folders = [Path(os.path.realpath(folder)) for folder in installed]
        # One that holds the tree itself, such as /usr, says nothing of what is in the tree.
        self._installed = [each for each in folders if each.is_relative_to(self.top)]
        self._sides: dict[str, str | None] = {}  # of modules, by name
        self._files: set[str] = set()  # of modules in a tree, relative to it

    def side_of(self, path: str) -> str | None:
        """Return "before" or "after" by whose code it is; None for others, and a shared suite."""
        real = Path(os.path.realpath(path))
        return None if any(map(real.is_relative_to, self._suites)) else self._tree(real)

    def _tree(self, real: Path) -> str | None:
        if any(map(real.is_relative_to, self._installed)):
            return None
        if self.checkout is not None and real.is_relative_to(self.checkout):
            return "before"
        return "after" if real.is_relative_to(self.top) else None

    def translated(self, path: str) -> str:
        """Return where in the checkout a path of the working tree lies; others as they are."""
        real = Path(os.path.realpath(path))
        if self.checkout is None or self._tree(real) != "after":
            return path
        return str(self.checkout / real.relative_to(self.top))

    def loaded(self) -> dict[str, list[str]]:
        """Return the packages imported, by where from: "before", "after" or "neither" tree.

        Those are also "shadowed" that came from neither, even in part, though a tree has them.
        And the "files" that were imported from a tree, relative to it.
        """
        for name, module in list(sys.modules.items()):
            if name not in self._sides:  # each is looked up once: a fork knows what its server knew
                file = getattr(module, "__file__", None)
                self._sides[name] = self._side_of_module(name, file)
                self._files.update(self._relative(file))
        wheres = ("before", "after", "neither", "shadowed")
        found: dict[str, set[str]] = {where: set() for where in wheres}
        for name, side in self._sides.items():
            package = name.partition(".")[0]
            if side is not None:
                found[side].add(package)
            if side == "neither" and self._has(package):
                found["shadowed"].add(package)
        return {side: sorted(names) for side, names in found.items()} | {
            "files": sorted(self._files)
        }

    def _relative(self, file: object) -> list[str]:
        """Return where in its tree a module's file lies; nothing if in none."""
        if not isinstance(file, str) or not os.path.isabs(file):  # noqa: PTH117
            return []
        real = Path(os.path.realpath(file))
        side = self._tree(real)
        if side is None:
            return []
        tree = self.checkout if side == "before" and self.checkout is not None else self.top
        return [real.relative_to(tree).as_posix()]

    def _side_of_module(self, name: str, file: object) -> str | None:
        # Where the suite is no code under test, its conftest.py is none, wherever that lies.
        if self._suites and name.rpartition(".")[2] == "conftest":
            return None
        # Nor is a plugin. Some modules that have no file make one up: torch.ops has "_ops.py".
        if "__" in name:
            return None
        if not isinstance(file, str) or not os.path.isabs(file):  # noqa: PTH117
            return None
        return self.side_of(file) or "neither"

    @cache  # noqa: B019  # there is one of these in a process, for as long as it lives
    def _has(self, package: str) -> bool:
        """Tell whether a tree has the source of a package, where projects put it."""
        return any(
            (folder / package / "__init__.py").is_file() or (folder / f"{package}.py").is_file()
            for tree in self._trees
            for folder in (tree, *(tree / root for root in ROOTS))
        )


class Translated:
    """A finder whose finds in the working tree are looked up in the checkout instead.

    Editable installs that are no line in a .pth file put finders like these on sys.meta_path.
    """

    def __init__(self, finder: Any, trees: Trees) -> None:
        self._finder = finder
        self._trees = trees

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec that the finder has, moved to the checkout."""
        find = getattr(self._finder, "find_spec", None)  # older than Python 3.4's have none
        spec: ModuleSpec | None = None if find is None else find(name, path, target)
        if spec is None:
            return None
        folders = spec.submodule_search_locations
        folders = None if folders is None else [*map(self._trees.translated, folders)]
        if not spec.origin or not Path(spec.origin).is_file():  # as of a namespace
            spec.submodule_search_locations = folders
            return spec
        moved = self._trees.translated(spec.origin)
        if moved == spec.origin:
            return spec
        if not Path(moved).exists():
            return None
        return importlib.util.spec_from_file_location(
            name, moved, submodule_search_locations=folders
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(self._finder, name)


class Pinned:
    """A finder of one package in one place, so that both sides are timed by one perfsuite."""

    def __init__(self, name: str, folder: str) -> None:
        self._name = name
        self._folder = folder

    def find_spec(self, name: str, *_: object, **__: object) -> ModuleSpec | None:
        """Return the package's spec, None for any other."""
        if name != self._name:
            return None
        init = f"{self._folder}/__init__.py"
        return importlib.util.spec_from_file_location(
            name, init, submodule_search_locations=[self._folder]
        )


def installed_folders() -> list[str]:
    """Return where packages of this interpreter are installed; also within a tree, as .venv."""
    names = ("purelib", "platlib", "stdlib", "platstdlib")
    return [sys.prefix, *(sysconfig.get_path(name) for name in names)]


def misplaced(then: Mapping[str, Sequence[str]], now: Mapping[str, Sequence[str]]) -> str | None:
    """Return why two workers, by `Trees.loaded`, did not run their own tree's code, if so."""
    if then["after"]:
        return f"before imported {', '.join(then['after'])} from the working tree"
    if now["before"]:
        return f"after imported {', '.join(now['before'])} from the checkout"
    for side, own, other, loaded in (
        ("before", then["before"], now["after"], then),
        ("after", now["after"], then["before"], now),
    ):
        strays = {*loaded["shadowed"], *((set(other) - set(own)) & set(loaded["neither"]))}
        if strays:
            return f"{side} imported {', '.join(sorted(strays))} from where it is installed"
    if not then["before"] and not now["after"]:
        return "nothing but the benchmarks themselves was imported from either tree"
    return None
