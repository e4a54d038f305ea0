"""Worktrees come and go, and leave the repository, its index and each other alone."""

from pathlib import Path

import pytest
from projects import MYNET, Project

from perfsuite.against.worktree import add_worktree, overlay, remove_worktree
from perfsuite.records.git import GitError, resolve


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_two_worktrees_do_not_disturb_each_other(project: Project, tmp_path: Path) -> None:
    ref = resolve("HEAD", project.folder)
    one, other = tmp_path / "one", tmp_path / "other"
    for path in (one, other):
        add_worktree(ref, path)
    remove_worktree(ref.top, one)
    assert not one.exists()
    assert (other / "src/mynet/__init__.py").read_text() == MYNET
    assert project.left_behind() == ["1 worktrees"]
    remove_worktree(ref.top, other)
    assert project.left_behind() == []


def test_what_was_never_added_is_removed_without_a_word(project: Project, tmp_path: Path) -> None:
    remove_worktree(project.folder, tmp_path / "nothing")
    assert project.left_behind() == []


def test_the_working_trees_suite_takes_the_place_of_the_old_one(
    project: Project, tmp_path: Path
) -> None:
    ref = resolve("HEAD", project.folder)
    add_worktree(ref, tmp_path / "checkout")
    project.write("benchmarks/test_new.py", "")
    (project.folder / "benchmarks" / "test_speed.py").unlink()
    overlay(project.folder, tmp_path / "checkout", Path("benchmarks"))
    names = sorted(path.name for path in (tmp_path / "checkout" / "benchmarks").iterdir())
    assert names == ["conftest.py", "test_new.py", "thresholds.toml"]


def test_a_suite_behind_a_link_out_of_the_repository_is_refused(
    project: Project, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (project.folder / "linked").symlink_to(tmp_path / "elsewhere")
    project.commit()
    add_worktree(resolve("HEAD", project.folder), tmp_path / "checkout")
    with pytest.raises(GitError, match="linked was a link out of the repository"):
        overlay(project.folder, tmp_path / "checkout", Path("linked/benchmarks"))
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_submodule_that_lacks_the_commit_is_named(project: Project, tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    project.git("init", "--quiet", folder=inner)
    project.git("commit", "--quiet", "--allow-empty", "--message=inner", folder=inner)
    project.git("submodule", "--quiet", "add", str(inner), "lib")
    gone = "1" * 40
    project.git("update-index", "--cacheinfo", f"160000,{gone},lib")
    project.git("commit", "--quiet", "--message=gone")
    with pytest.raises(GitError, match=r"submodule lib at 111111111111: .*; fetch it in .*/lib"):
        add_worktree(resolve("HEAD", project.folder), tmp_path / "checkout")
