"""A commit checked out beside the working tree, which is left as it is."""

import os
import shutil
import subprocess
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
        CheckoutError: there is no repository that git will use, or no such commit.
    """
    top = Path(_git(folder, "rev-parse", "--show-toplevel"))
    unknown = f"{ref!r} is no commit, branch or tag of {top}"
    if ref.startswith("-"):  # git would take it for an option
        raise CheckoutError(unknown)
    try:
        commit = _git(top, "rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}")
    except CheckoutError:
        raise CheckoutError(unknown) from None
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


def add_checkout(ref: Ref, checkout: Checkout) -> None:
    """Check a commit out, its submodules too, as far as they are there without a network.

    What it leaves behind if it fails, or is interrupted, `Checkout.remove` removes.

    Args:
        ref: what to check out.
        checkout: where; a folder that does not exist yet, outside the working tree.

    Raises:
        CheckoutError: git cannot do it.
    """
    path = str(checkout.path)
    # Hooks are the user's, and may do anything; the working tree's index is not looked at.
    _git(ref.top, *_NO_HOOKS, "worktree", "add", "--quiet", "--detach", path, ref.commit)
    _add_submodules(ref.top, checkout.path)


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
    if not target.parent.resolve().is_relative_to(checkout.resolve()):
        raise CheckoutError(f"{suite.parent} was a link out of the repository: {target.parent}")
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    else:
        target.unlink(missing_ok=True)
    left_out = shutil.ignore_patterns("__pycache__", ".git", ".benchmarks")
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
        CheckoutError: it fails, with the line that says why.
    """
    # From within a hook, git would take the repository, or the index, from the environment.
    environment = {k: v for k, v in os.environ.items() if k not in _OF_A_REPOSITORY}
    # It neither asks for a password nor refreshes the user's index on the way.
    environment |= {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0"}
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",  # a file's name may be any bytes
            check=False,
        )
    except FileNotFoundError:
        raise CheckoutError("git is not installed") from None
    if done.returncode:
        said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        fatal = [line for line in said if line.startswith(("fatal:", "error:"))]
        raise CheckoutError((fatal or said or [f"git {arguments[0]} failed"])[0])
    return done.stdout.rstrip("\n")


_OF_A_REPOSITORY = frozenset(
    f"GIT_{name}"
    for name in (
        "ALTERNATE_OBJECT_DIRECTORIES",
        "COMMON_DIR",
        "DIR",
        "INDEX_FILE",
        "NAMESPACE",
        "OBJECT_DIRECTORY",
        "PREFIX",
        "WORK_TREE",
    )
)
