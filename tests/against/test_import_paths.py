"""Imports come from the side's own tree, however the other tree is installed."""

import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

import pytest

from perfsuite.against.import_paths import Pinned, Translated, Trees, misplaced


@pytest.fixture
def trees(tmp_path: Path) -> Trees:
    for tree in ("tree", "checkout"):
        package = tmp_path / tree / "src" / "mynet"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(f"FROM = {tree!r}\n")
        (package / "inner.py").write_text(f"FROM = {tree!r}\n")
        (tmp_path / tree / "benchmarks").mkdir()
    (tmp_path / "tree" / "src" / "mynet" / "new.py").write_text("")
    (tmp_path / "tree" / ".venv").mkdir()
    return Trees(
        str(tmp_path / "tree"),
        str(tmp_path / "checkout"),
        "benchmarks",
        [str(tmp_path / "tree" / ".venv")],
    )


@pytest.mark.parametrize(
    ("path", "side"),
    [
        ("tree/src/mynet/__init__.py", "after"),
        ("checkout/src/mynet/__init__.py", "before"),
        ("tree/benchmarks/test_speed.py", None),
        ("checkout/benchmarks/test_speed.py", None),
        ("tree/.venv/lib/torch.py", None),
        ("elsewhere/torch.py", None),
        ("tree-2/torch.py", None),
    ],
)
def test_a_file_is_of_one_side_or_of_neither(
    trees: Trees, tmp_path: Path, path: str, side: str | None
) -> None:
    assert trees.side_of(str(tmp_path / path)) == side


def test_a_suite_of_its_own_is_code_of_its_side(tmp_path: Path) -> None:
    trees = Trees(str(tmp_path / "tree"), str(tmp_path / "checkout"), None)
    for tree, side in (("tree", "after"), ("checkout", "before")):
        file = str(tmp_path / tree / "benchmarks" / "conftest.py")
        assert trees.side_of(file) == side
        assert trees._side_of_module("conftest", file) == side


def test_a_prefix_that_holds_the_tree_installs_nothing_in_it(tmp_path: Path) -> None:
    trees = Trees(str(tmp_path / "src" / "app"), None, "benchmarks", [str(tmp_path)])
    assert trees.side_of(str(tmp_path / "src" / "app" / "mynet.py")) == "after"


def test_only_code_of_the_working_tree_is_translated(trees: Trees, tmp_path: Path) -> None:
    moved = trees.translated(str(tmp_path / "tree" / "src"))
    assert moved == str(tmp_path / "checkout" / "src")
    assert trees.translated(str(tmp_path / "tree" / "benchmarks")).startswith(
        str(tmp_path / "checkout")
    )
    for path in ("tree/.venv/lib", "checkout/src", "elsewhere"):
        assert trees.translated(str(tmp_path / path)) == str(tmp_path / path)


def test_a_link_to_the_tree_is_the_tree(trees: Trees, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "tree")
    assert trees.translated(str(tmp_path / "link" / "src")) == str(tmp_path / "checkout" / "src")


class Editable:
    """A finder such as an editable install makes: a package, by a path of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find_spec(
        self,
        name: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        if name == "mynet":
            return importlib.util.spec_from_file_location(
                name,
                self.folder / "mynet" / "__init__.py",
                submodule_search_locations=[str(self.folder / "mynet")],
            )
        return PathFinder.find_spec(name, path, target)


def test_what_an_editable_installs_finder_finds_is_moved(trees: Trees, tmp_path: Path) -> None:
    finder = Translated(Editable(tmp_path / "tree" / "src"), trees)
    spec = finder.find_spec("mynet")
    assert spec is not None
    assert spec.origin == str(tmp_path / "checkout" / "src" / "mynet" / "__init__.py")
    assert spec.submodule_search_locations == [str(tmp_path / "checkout" / "src" / "mynet")]
    assert finder.find_spec("mynet.new", spec.submodule_search_locations) is None


def test_what_the_checkout_has_not_is_not_found(trees: Trees, tmp_path: Path) -> None:
    finder = Translated(Editable(tmp_path / "tree" / "src"), trees)
    assert finder.find_spec("new", [str(tmp_path / "tree" / "src" / "mynet")]) is None


def test_a_namespace_is_moved_too(trees: Trees, tmp_path: Path) -> None:
    finder = Translated(Editable(tmp_path), trees)
    spec = finder.find_spec("src", [str(tmp_path / "tree")])
    assert spec is not None
    assert list(spec.submodule_search_locations or ()) == [str(tmp_path / "checkout" / "src")]


def test_one_package_is_pinned_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "tool").mkdir()
    (tmp_path / "tool" / "__init__.py").write_text("")
    finder = Pinned("tool", str(tmp_path / "tool"))
    spec = finder.find_spec("tool")
    assert spec is not None
    assert spec.submodule_search_locations == [str(tmp_path / "tool")]
    assert finder.find_spec("tool.inner") is None
    assert finder.find_spec("other") is None


def test_what_was_loaded_is_told_by_side(
    trees: Trees, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {
        "mynet": "tree/src/mynet/__init__.py",
        "mynet.inner": "elsewhere/inner.so",
        "conftest": "tree/conftest.py",
    }
    for name, path in found.items():
        module = ModuleType(name)
        module.__file__ = str(tmp_path / path)
        monkeypatch.setitem(sys.modules, name, module)
    loaded = trees.loaded()
    assert loaded["after"] == ["mynet"]
    assert loaded["before"] == []
    assert loaded["shadowed"] == ["mynet"]  # in part, from where it is installed
    assert "pytest" in loaded["neither"]


def sides(
    before: str = "", after: str = "", neither: str = "", shadowed: str = ""
) -> dict[str, list[str]]:
    named = {"before": before, "after": after, "neither": neither, "shadowed": shadowed}
    return {where: names.split() for where, names in named.items()}


@pytest.mark.parametrize(
    ("then", "now", "message"),
    [
        (sides(before="mynet"), sides(after="mynet"), None),
        (sides(before="mynet old"), sides(after="mynet new"), None),
        (sides(before="mynet", after="mynet"), sides(after="mynet"), "before imported mynet from"),
        (sides(before="mynet"), sides(before="mynet"), "after imported mynet from the checkout"),
        (sides(neither="mynet"), sides(after="mynet"), "before imported mynet from where"),
        (sides(before="mynet"), sides(neither="mynet"), "after imported mynet from where"),
        (
            sides(before="a", neither="b", shadowed="b"),
            sides(after="a", neither="b", shadowed="b"),
            "before imported b from where it is installed",
        ),
        (sides(neither="mynet"), sides(neither="mynet"), "nothing but the benchmarks"),
    ],
)
def test_sides_that_are_not_two_trees_are_told(
    then: dict[str, list[str]], now: dict[str, list[str]], message: str | None
) -> None:
    why = misplaced(then, now)
    assert why is None if message is None else message in str(why)
