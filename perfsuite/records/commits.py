"""The row of commits between two, and which of them can change what a benchmark runs."""

from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from os.path import relpath
from pathlib import Path, PurePosixPath
from shlex import quote

from perfsuite.records.git import GitError, Ref, commits_since, git, why_shallow

WHICH = "which commit: perfsuite "
"""How the line begins that tells the command of a bisection."""
_SOURCE, _PROSE = (".py", ".pyi"), (".md", ".rst")
_RECORD, _FIELD = "\x01", "\x02"


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitOfRow:
    """A commit of the row; what it touches is told beside its first parent."""

    hash: str
    title: str
    parents: tuple[str, ...]
    touched: tuple[str, ...]  # files, by their paths in the repository

    @property
    def told(self) -> str:
        """The short hash and the title."""
        return f"{self.hash[:12]} {self.title}"

    @property
    def merge_of(self) -> str | None:
        """What a merge brought in, as a range of commits; None for any other commit."""
        return f"{self.hash[:12]}^1 {self.hash[:12]}^2" if len(self.parents) > 1 else None

    def within(self, suite: str) -> bool:
        """Whether it touches source in this folder of the repository."""
        return any(
            path.endswith(_SOURCE) and PurePosixPath(path).is_relative_to(suite)
            for path in self.touched
        )

    def may_change(self, imported: Collection[str], suite: str | None) -> bool:
        """Tell whether what it touches may be run, where these files of the trees are imported.

        Python's source runs where it is imported. Of any other file nobody knows who reads it, but
        for prose. The `suite`, a folder of the repository, is the working tree's on all commits.
        Of several conftest.py that are imported, only one is told: they share a name.
        """
        return any(
            not (suite is not None and PurePosixPath(path).is_relative_to(suite))
            and not path.endswith(_PROSE)
            and (
                path in imported
                or not path.endswith(_SOURCE)
                or PurePosixPath(path).name == "conftest.py"
            )
            for path in self.touched
        )


def commits_between(good: Ref, bad: Ref) -> list[CommitOfRow]:
    """Return the commits after `good` up to `bad`, by first parents, the oldest first.

    A merge is one commit: so each is a state that the branch had, and what a merge brought in is
    not mixed with what was there meanwhile, as under `git bisect --first-parent`.

    Raises:
        GitError: `good` is no ancestor of `bad`, or on a branch that was merged, or both are the
            same.
    """
    if good.commit == bad.commit:
        raise GitError(f"{good.told} and {bad.told} are the same commit: nothing lies between")
    base = ""
    with suppress(GitError):  # no common ancestor, or none that a shallow clone has
        base = git(bad.top, "merge-base", good.commit, bad.commit)
    if base != good.commit:
        swapped = base == bad.commit
        remedy = "name the older one first" if swapped else f"try {base[:12]}, from which both are"
        if not base:
            remedy = why_shallow(bad.top) or "they have no commit in common"
        raise GitError(f"{good.told} is no ancestor of {bad.told}: {remedy}")
    said = git(
        bad.top,
        *("-c", "core.quotePath=false", "log", "--reverse", "--first-parent", "-m"),
        *("--name-only", "--no-renames", f"--format={_RECORD}%H{_FIELD}%P{_FIELD}%s{_FIELD}"),
        f"{good.commit}..{bad.commit}",
    )
    found = []
    for record in said.split(_RECORD)[1:]:
        name, parents, title, touched = record.split(_FIELD)
        files = tuple(line for line in touched.splitlines() if line)
        # It may be of any bytes, and goes into files and JSON.
        title = title.encode(errors="replace").decode()
        found.append(
            CommitOfRow(hash=name, title=title, parents=tuple(parents.split()), touched=files)
        )
    # By first parents a row may pass `good` by, and begin with code that it has not, and without
    # what it has.
    (fork, *_) = found[0].parents or ("",)
    if fork != good.commit:
        remedy = f"try {fork[:12]}, from which both are" if fork else why_shallow(bad.top)
        remedy = remedy or "by first parents they have no commit in common"
        raise GitError(f"{good.told} is on a branch that was merged into {bad.told}: {remedy}")
    return found


def which_commit(since: str, searched: str, suite: Path) -> list[str]:
    """Return the command that finds which commit changed what is `searched`, if there are several.

    Nothing where only the suite and prose changed, since all versions run today's suite. See
    `of_benchmark`.
    """
    if len(commits_since(since, suite)) < 2:
        return []
    beside = git(suite, "diff", "--name-only", "-z", since, "HEAD", "--", ":/", ":(exclude).")
    if all(file.endswith(_PROSE) for file in beside.split("\0") if file):
        return []
    return [f"{WHICH}bisect {since[:12]}{searched}"]


def which_package(python: str, searched: str) -> list[str]:
    """Return the command that finds which package did, beside another interpreter's."""
    return [f"which package: perfsuite bisect --packages {quote(python)}{searched}"]


def of_benchmark(key: str, suite: Path, ranks: int, figure: str) -> str:
    """Return the arguments by which a bisection searches this benchmark alone.

    Without a `figure` it chooses one by itself.
    """
    folder, (file, _, name) = relpath(suite), key.partition("::")
    where = "" if folder == "benchmarks" else f" --suite {quote(folder)}"
    beside = f" --perf-ranks {ranks}" if ranks > 1 else ""
    which = f" --figure {quote(figure)}" if figure else ""
    name = quote(name.rpartition("::")[2])
    # The file, too: what waits to be named is not searched otherwise.
    return f" {quote(relpath(suite / file))}{where} -k {name}{which}{beside}"
