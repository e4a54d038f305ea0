"""A commit checked out beside the working tree, which is left as it is."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "Checkout",
    "CheckoutError",
    "Ref",
    "add_checkout",
    "commits_since",
    "overlay",
    "resolve",
]


class CheckoutError(RuntimeError):
    """A commit that is not there or cannot be checked out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ref:
    """A commit of a repository.

    Attributes:
        name: as it was given.
        commit: its full hash.
        top: the top folder of the working tree.
        dirty: whether that has changes that are in no commit.
    """

    name: str
    commit: str
    top: Path
    dirty: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkout:
    """A temporary worktree of a repository.

    Attributes:
        top: of the repository that it belongs to.
        path: where it lies.
    """

    top: Path
    path: Path

    def remove(self) -> None:
        """Remove the folder, and what the repository notes of it; nothing else is touched."""
        shutil.rmtree(self.path, ignore_errors=True)
        listed = _git(self.top, "worktree", "list", "--porcelain").splitlines()
        if f"worktree {self.path}" in listed:
            _git(self.top, "worktree", "remove", "--force", "--force", str(self.path))


def resolve(ref: str, folder: Path) -> Ref:
    """Return the commit that `ref` names in the repository around `folder`.

    Raises:
        CheckoutError: there is no repository, or no such commit.
    """
    try:
        top = Path(_git(folder, "rev-parse", "--show-toplevel"))
    except CheckoutError:
        raise CheckoutError(f"{folder} is in no git repository") from None
    try:
        commit = _git(
            top, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}"
        )
    except CheckoutError:
        raise CheckoutError(f"{ref!r} is no commit, branch or tag of {top}") from None
    dirty = bool(_git(top, "status", "--porcelain", "--untracked-files=normal"))
    return Ref(name=ref, commit=commit, top=top, dirty=dirty)


def commits_since(commit: str, folder: Path) -> list[str]:
    """Return the subjects of the commits since `commit`, the newest first.

    There are none where there is no repository around `folder`, or it has no such commit.
    """
    try:
        return _git(folder, "log", "--oneline", "--no-decorate", f"{commit}..HEAD").splitlines()
    except CheckoutError:
        return []


def add_checkout(ref: Ref, path: Path) -> Checkout:
    """Check a commit out, its submodules too, as far as they are there without a network.

    Args:
        ref: what to check out.
        path: a folder that does not exist yet, outside the working tree.

    Raises:
        CheckoutError: git cannot do it; what it left behind is removed.
    """
    checkout = Checkout(top=ref.top, path=path)
    try:
        # Hooks are the user's, and may do anything; the working tree's index is not looked at.
        _git(ref.top, *_NO_HOOKS, "worktree", "add", "--quiet", "--detach", str(path), ref.commit)
        _add_submodules(ref.top, path)
    except BaseException:  # Ctrl-C too
        checkout.remove()
        raise
    return checkout


def overlay(tree: Path, checkout: Path, suite: Path) -> None:
    """Put the working tree's suite in the place of the checkout's.

    Args:
        tree: the working tree.
        checkout: the other.
        suite: the folder, relative to either.

    Raises:
        CheckoutError: the suite is the whole tree, and with it all code under test.
    """
    if suite == Path():
        raise CheckoutError(
            f"{tree} is the suite and the code under test at once: move thresholds.toml and the"
            " benchmarks into a folder of their own"
        )
    target = checkout / suite
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    else:
        target.unlink(missing_ok=True)
    left_out = shutil.ignore_patterns("__pycache__", ".git", ".benchmarks", "baselines")
    shutil.copytree(tree / suite, target, symlinks=True, ignore=left_out)


_NO_HOOKS = ("-c", f"core.hooksPath={os.devnull}")


def _add_submodules(tree: Path, checkout: Path) -> None:
    """Clone the submodules that are there in `tree` into the checkout, from there."""
    for entry in filter(None, _git(checkout, "ls-files", "--stage", "-z").split("\0")):
        about, _, path = entry.partition("\t")
        mode, commit, _ = about.split()
        if mode != "160000":
            continue
        source, target = tree / path, checkout / path
        if not (source / ".git").exists():
            continue  # not there either: the working tree does without, so may the checkout
        try:
            _git(
                tree,
                *_NO_HOOKS,
                "clone",
                "--quiet",
                "--shared",
                "--no-checkout",
                str(source),
                str(target),
            )
            _git(target, *_NO_HOOKS, "checkout", "--quiet", "--detach", commit)
        except CheckoutError as error:
            raise CheckoutError(
                f"submodule {path} at {commit[:12]}: {error}; fetch it in {source}"
            ) from None
        _add_submodules(source, target)


def _git(folder: Path, *arguments: str) -> str:
    """Run git and return what it says.

    Raises:
        CheckoutError: it fails, with its last line.
    """
    # From within a hook, git would take the repository, or the index, from the environment.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    environment["LC_ALL"] = "C"
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        raise CheckoutError("git is not installed") from None
    if done.returncode:
        raise CheckoutError(_last_line(done.stderr.splitlines()) or f"git {arguments[0]} failed")
    return done.stdout.rstrip("\n")


def _last_line(lines: Sequence[str]) -> str:
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
