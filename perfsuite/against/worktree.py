"""A commit checked out beside the working tree, which is left as it is."""

import os
import shutil
from pathlib import Path

from perfsuite.records.git import GitError, Ref, git


def add_worktree(ref: Ref, path: Path) -> None:
    """Check a commit out, its submodules too, as far as they are there without a network.

    What it leaves behind if it fails, or is interrupted, `remove_worktree` removes.
    Raises GitError.
    """
    # Hooks are the user's, and may do anything; the working tree's index is not looked at.
    git(ref.top, *_NO_HOOKS, "worktree", "add", "--quiet", "--detach", str(path), ref.commit)
    _add_submodules(ref.top, path)


def remove_worktree(top: Path, path: Path) -> None:
    """Remove the folder `path`, and the entry of the repository `top` for it; nothing else."""
    shutil.rmtree(path, ignore_errors=True)
    if f"worktree {path}" in git(top, "worktree", "list", "--porcelain").splitlines():
        git(top, "worktree", "remove", "--force", "--force", str(path))


def overlay(tree: Path, checkout: Path, suite: Path) -> None:
    """Put the working tree's `suite`, a path relative to either, in the place of the checkout's.

    Raises GitError where it is the whole tree, and with it all code under test.
    """
    if suite == Path():
        raise GitError(
            f"{tree} is the suite and the code under test at once: move thresholds.toml and the"
            " benchmarks into a folder of their own"
        )
    target = checkout / suite
    if not target.parent.resolve().is_relative_to(checkout.resolve()):
        raise GitError(f"{suite.parent} was a link out of the repository: {target.parent}")
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    else:
        target.unlink(missing_ok=True)
    left_out = shutil.ignore_patterns("__pycache__", ".git", ".benchmarks")
    shutil.copytree(tree / suite, target, symlinks=True, ignore=left_out)


_NO_HOOKS = ("-c", f"core.hooksPath={os.devnull}")


def _add_submodules(tree: Path, checkout: Path) -> None:
    for entry in filter(None, git(checkout, "ls-files", "--stage", "-z").split("\0")):
        about, _, path = entry.partition("\t")
        mode, commit, _ = about.split()
        if mode != "160000":
            continue
        source, target = tree / path, checkout / path
        if not (source / ".git").exists():
            continue  # not there either: the working tree does without, so may the checkout
        try:
            how = ("--quiet", "--shared", "--no-checkout")
            git(tree, *_NO_HOOKS, "clone", *how, str(source), str(target))
            git(target, *_NO_HOOKS, "checkout", "--quiet", "--detach", commit)
        except GitError as error:
            which = f"submodule {path} at {commit[:12]}"
            raise GitError(f"{which}: {error}; fetch it in {source}") from None
        _add_submodules(source, target)
