"""Questions to git about the repository around a folder, which stays as it is."""

import hashlib
import os
import re
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

# From within a hook, git would take the repository, or the index, from the environment.
_OF_A_REPOSITORY = re.compile(
    "GIT_(ALTERNATE_OBJECT_DIRECTORIES|COMMON_DIR|DIR|INDEX_FILE|NAMESPACE|OBJECT_DIRECTORY"
    "|PREFIX|WORK_TREE)"
)

HASH = re.compile("[0-9a-f]{7,64}")


class GitError(RuntimeError):
    """What git could not do, in its own words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ref:
    """A commit of a repository, by the name that was given for it, and the working tree around."""

    name: str
    commit: str  # the full hash
    top: Path  # of the working tree
    dirty: bool  # whether that has changes that are in no commit

    @property
    def told(self) -> str:
        """The name, with the short hash where it is not the hash itself."""
        short = self.commit[:12]
        return short if self.commit.startswith(self.name) else f"{self.name} ({short})"


def resolve(ref: str, folder: Path) -> Ref:
    """Return the commit that `ref` names around `folder`; GitError if there is none."""
    top = Path(git(folder, "rev-parse", "--show-toplevel"))
    unknown = f"{ref!r} is no commit, branch or tag of {top}"
    if ref.startswith("-"):  # git would take it for an option
        raise GitError(unknown)
    try:
        commit = git(top, "rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}")
    except GitError:
        raise GitError(": ".join(filter(None, (unknown, why_shallow(top))))) from None
    dirty = bool(git(top, "status", "--porcelain", "--untracked-files=normal"))
    return Ref(name=ref, commit=commit, top=top, dirty=dirty)


def commits_since(commit: str, folder: Path) -> list[str]:
    """Return the subjects of the commits since `commit`, the newest first; none if unknown."""
    try:
        return git(folder, "log", "--oneline", "--no-decorate", f"{commit}..HEAD").splitlines()
    except GitError:
        return []


def tree_as_it_is(folder: Path) -> str:
    """Return a digest of the working tree's commit and source; nothing where there is no git."""
    try:
        top = Path(git(folder, "rev-parse", "--show-toplevel"))
        told = [
            git(top, "rev-parse", "HEAD"),
            git(top, "diff", "--no-ext-diff", "--no-textconv", "--binary", "HEAD"),
        ]
        # What else is new is written by runs, and would make each run another tree.
        new = git(top, "ls-files", "-z", "--others", "--exclude-standard", "--", "*.py")
        files = [name for name in new.split("\0") if name]
        told += [git(top, "hash-object", "--", *files)] * bool(files)
    except GitError:
        return ""
    told += files
    return hashlib.sha256("\0".join(told).encode(errors="surrogateescape")).hexdigest()


def why_shallow(folder: Path) -> str:
    """Return what to do where the repository lacks commits that its clone left out, or nothing."""
    with suppress(GitError):
        if git(folder, "rev-parse", "--is-shallow-repository") == "true":
            return "the clone is shallow: fetch it whole (fetch-depth: 0, or git fetch --unshallow)"
    return ""


def git(folder: Path, *arguments: str) -> str:
    """Run git and return what it says; GitError, with the line that says why, if it fails."""
    environment = {k: v for k, v in os.environ.items() if not _OF_A_REPOSITORY.fullmatch(k)}
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
        raise GitError("git is not installed") from None
    if done.returncode:
        said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        fatal = [line for line in said if line.startswith(("fatal:", "error:"))]
        raise GitError((fatal or said or [f"git {arguments[0]} failed"])[0])
    return done.stdout.rstrip("\n")
