"""What is searched: a row of versions, each of which can be started: commits, or packages."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import pytest

from perfsuite.against.comparison import checked_out, home_of_a_side, start_side
from perfsuite.against.controllers import ServerController
from perfsuite.records.commits import CommitOfRow, commits_between, of_benchmark
from perfsuite.records.git import Ref, resolve
from perfsuite.records.wording import counted
from perfsuite.session.options import ranks_of


class Row(Protocol):
    """Versions 0 to n: the good end, then one for each step, of which the last is the bad end."""

    @property
    def noun(self) -> str:
        """What a step is called, such as "commit"."""

    @property
    def steps(self) -> Sequence[str]:
        """What each step from 1 to n is, in a line; by these they are told from other rows'."""

    def header(self) -> list[str]:
        """Return lines that say what is searched."""

    def may_change(self, step: int, imported: Collection[str]) -> bool:
        """Tell whether a step may change what runs, where these files are imported from a tree."""

    def start(self, version: int, stack: ExitStack) -> ServerController:
        """Start a version's server, until the stack is closed.

        Raises SideError, GitError or EnvironmentUnavailableError where it cannot be.
        """

    def misplaced(self, loaded: Mapping[str, list[str]]) -> str | None:
        """Return why a worker did not run its version, by `Done.loaded`, if so."""

    def advice(self, step: int, key: str, figure: str) -> str | None:
        """Return what to do next where this step changed a benchmark's figure; None if nothing."""

    def key(self) -> str | None:
        """Return what tells this row from others, by what is in each version.

        None where nobody can tell: what was measured of it is then used by no other search.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitRow:
    """The commits between two of a repository, by first parents."""

    config: pytest.Config
    suite: Path
    good: Ref
    bad: Ref
    commits: Sequence[CommitOfRow]
    noun: str = "commit"

    @classmethod
    def between(cls, config: pytest.Config, suite: Path, good: str, bad: str) -> "CommitRow":
        """Return the row from one commit to another; GitError if there is none."""
        ends = resolve(good, suite), resolve(bad, suite)
        found = commits_between(*ends)
        return cls(config=config, suite=suite, good=ends[0], bad=ends[1], commits=found)

    @property
    def steps(self) -> list[str]:
        return [each.told for each in self.commits]

    def header(self) -> list[str]:
        lines = [f"good: {self.good.told}", f"bad:  {self.bad.told}"]
        if self.bad.dirty:
            lines.append("uncommitted changes are not searched, but for those of the benchmarks")
        if changed := sum(map(self._changes_suite, self.commits)):
            what = f"{counted(changed, 'commit')} changed the benchmarks"
            lines.append(f"{what}, which all versions run as they are now: that is not searched")
        return lines

    @property
    def _inside(self) -> str | None:
        """The suite as a folder of the repository, None where it lies elsewhere."""
        top = self.good.top
        return self.suite.relative_to(top).as_posix() if self.suite.is_relative_to(top) else None

    def _changes_suite(self, commit: CommitOfRow) -> bool:
        return self._inside is not None and commit.within(self._inside)

    def may_change(self, step: int, imported: Collection[str]) -> bool:
        return self.commits[step - 1].may_change(imported, self._inside)

    def start(self, version: int, stack: ExitStack) -> ServerController:
        commit = self.commits[version - 1].hash if version else self.good.commit
        ref = replace(self.good, name=commit, commit=commit)
        home = home_of_a_side(stack)
        checkout = checked_out(ref, self.suite, home, stack)
        side = start_side(
            "before",
            None,
            config=self.config,
            suite=self.suite,
            top=ref.top,
            checkout=checkout,
            home=home,
            name=commit[:12],
        )
        return stack.enter_context(side)

    def misplaced(self, loaded: Mapping[str, list[str]]) -> str | None:
        if loaded["after"]:
            return f"it imported {', '.join(loaded['after'])} from the working tree"
        if loaded["shadowed"]:
            return f"it imported {', '.join(loaded['shadowed'])} from where it is installed"
        if not loaded["before"]:
            return "nothing but the benchmarks themselves was imported from its tree"
        return None

    def key(self) -> str:
        return f"{self.good.commit} {self.bad.commit}"

    def advice(self, step: int, key: str, figure: str) -> str | None:
        inside = self.commits[step - 1].merge_of
        if inside is None:
            return None
        first, second = inside.split()
        searched = of_benchmark(key, self.suite, ranks_of(self.config), figure)
        ends = f"$(git merge-base {first} {second}) {second}"
        return f"a merge; into it: perfsuite bisect {ends}{searched}"
