"""`perfsuite bisect`: a pytest session that searches a row of versions for each benchmark."""

import hashlib
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from secrets import token_hex

import msgspec
import pytest

from perfsuite.against.comparison import ComparisonError, cleaned_up, options_of_the_sides
from perfsuite.against.messages import Collected
from perfsuite.against.old_environment import EnvironmentUnavailableError
from perfsuite.against.placeholders import Placeholder, placeholder_file, placeholders_of
from perfsuite.bisecting.answers import answer_lines, write_answers
from perfsuite.bisecting.installed_packages import packages_of
from perfsuite.bisecting.package_row import PackageRow
from perfsuite.bisecting.rounds import BisectionError, RoundLog, Rounds
from perfsuite.bisecting.rows import CommitRow, Row
from perfsuite.bisecting.searching import Finding, Searcher
from perfsuite.judging.thresholds import FILE_NAME, ThresholdsError, load_thresholds
from perfsuite.records.git import GitError
from perfsuite.records.wording import counted
from perfsuite.session.collection import refuse_what_switches_gates_off
from perfsuite.session.terminal import StatusLine

KEPT = Path(".benchmarks")
"""Where what was measured is kept, in the folder in which the search was started."""
MakeRow = Callable[[pytest.Config, Path], Row]


def bisect(
    make_row: MakeRow,
    suite: Path,
    files: Sequence[str],
    *,
    figure: str | None,
    budget_s: float,
    output: Path | None,
    arguments: Sequence[str],
) -> int:
    """Search for these files, or the whole suite, with further arguments of pytest.

    Returns its exit code.
    """
    session = BisectionSession(make_row, suite.resolve(), figure, budget_s, output)
    plugins = {entry.value for entry in entry_points(group="pytest11")}
    own = [] if "perfsuite.plugin" in plugins else ["-p", "perfsuite.plugin"]
    # Nothing of perfsuite's own, which was imported to get here, relies on rewritten asserts.
    plain = "-Wignore:Module already imported:pytest.PytestAssertRewriteWarning"
    options = ["--override-ini=addopts=", "--noconftest", "-pno:cacheprovider", "-q", plain]
    return int(
        pytest.main([*own, *options, *(files or [str(suite)]), *arguments], plugins=[session])
    )


class BisectionSession:
    """The plugin: it searches for each benchmark in turn, and says at the end what was found."""

    starts_ranks = True  # in the processes that it compares, not in its own place

    def __init__(
        self,
        make_row: MakeRow,
        suite: Path,
        figure: str | None,
        budget_s: float,
        output: Path | None,
    ) -> None:
        self._make_row = make_row
        self._suite = suite
        self._figure = figure
        self._budget_s = budget_s
        self._output = output
        self._findings: list[Finding] = []
        self._unsearched = ""  # why the session fails though no item did
        self._kept: Path | None = None
        self._again = True  # whether a later search may use what this one measured

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self, session: pytest.Session) -> None:
        """Start both ends, which collect in this session's place."""
        config = session.config
        refuse_what_switches_gates_off(config, (), compare=False)
        if config.getoption("benchmark_skip"):
            raise pytest.UsageError("--benchmark-skip leaves nothing for a bisection to search")
        status = StatusLine(config)
        stack = ExitStack()
        config.add_cleanup(stack.close)
        try:
            self._row = self._make_row(config, self._suite)
            opened = partial(self._opened, config)
            self._rounds = Rounds(self._row, opened, stack.enter_context(cleaned_up()), status.show)
            bad = self._rounds.collected[len(self._row.steps)]
            thresholds = load_thresholds(self._suite / FILE_NAME, bad.hardware["key"])
        except (
            *(BisectionError, EnvironmentUnavailableError, GitError),
            *(OSError, ThresholdsError),
        ) as error:
            raise pytest.UsageError(f"bisect: {error}") from None
        self._collected = bad
        self._searcher = Searcher(
            rounds=self._rounds,
            thresholds=thresholds,
            figure=self._figure,
            budget_s=self._budget_s,
            show=status.show,
        )
        self._status = status

    def _opened(self, config: pytest.Config, bad: Collected) -> RoundLog:
        key = self._row.key()
        self._again = key is not None
        self._kept = log_of(key or token_hex(), self._suite, config, bad)
        return RoundLog(self._kept)

    def pytest_pycollect_makemodule(
        self, module_path: Path, parent: pytest.Collector
    ) -> pytest.Collector:
        """Collect what the bad end has of a file, without importing it."""
        found = placeholders_of(
            parent,
            module_path,
            suite=self._suite,
            items=self._collected.items,
            why_not=self._collected.why_not,
            run=self.search,
        )
        if found is not None:
            return found
        return placeholder_file(parent, module_path, key="", members={}, run=self.search)

    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        """Leave out what judges one tree by itself: no commit can be compared by it."""
        alone = [item for item in items if item.get_closest_marker("one_tree")]
        if alone:
            items[:] = [item for item in items if item not in alone]
            config.hook.pytest_deselected(items=alone)

    def search(self, item: Placeholder) -> None:
        """Search for what changed a benchmark; its item fails where there is no answer."""
        finding = Finding(key=item.key)
        self._findings.append(finding)  # whatever comes of it is told
        try:
            self._searcher.search(finding)
        except (BisectionError, ComparisonError) as error:
            finding.open = str(error)
        except BaseException:  # such as Ctrl-C, and the signal by which a night ends it
            finding.open = "it was broken off; run it again to go on from here"
            raise
        finally:
            self._status.clear()
        if finding.open:
            pytest.fail(f"no answer: {finding.open}", pytrace=False)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail a session in which not every benchmark was searched, for whatever reason."""
        asked, searched = len(session.items), len(self._findings)
        if session.exitstatus or session.config.option.collectonly or 0 < asked == searched:
            return
        self._unsearched = f"searched {searched} of {counted(asked, 'benchmark')}"
        session.exitstatus = pytest.ExitCode.TESTS_FAILED

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Show what was found, and where it was written."""
        if self._unsearched:
            terminalreporter.write_line(f"bisect: {self._unsearched}, so the session fails")
        if not self._findings:
            return
        terminalreporter.section("perfsuite bisect")
        lines = self._row.header()
        for finding in self._findings:
            lines += ["", *answer_lines(finding, self._row)]
        if self._kept is not None and self._kept.exists():
            later = "the same command goes on there"
            if not self._again:
                later = "it is not used again, since no commit of git tells what the code is"
            lines += ["", f"what was measured is kept in {self._kept}: {later}"]
        for line in lines:
            terminalreporter.write_line(line)
        if self._output is None:
            return
        try:
            told = [f"wrote {at}" for at in write_answers(self._findings, self._row, self._output)]
        except OSError as error:
            told = [f"perfsuite: the answer could not be written: {error}"]
        for line in told:
            terminalreporter.write_line(line)


def _content_of(folder: Path) -> list[tuple[str, str]]:
    """Return the files of a folder, each with a digest of its content."""
    found = []
    for home, folders, files in os.walk(folder):
        folders[:] = sorted(each for each in folders if not each.startswith((".", "__pycache__")))
        for name in sorted(files):
            path = Path(home) / name
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            found.append((path.relative_to(folder).as_posix(), digest))
    return found


def log_of(row_key: str, suite: Path, config: pytest.Config, bad: Collected) -> Path:
    """Return the file of this very search: of these versions, benchmarks, and conditions."""
    here = packages_of(sys.executable)  # any of them may be what takes the time
    packages = [sorted(each.items()) for each in (here.versions, here.elsewhere)]
    conditions = [bad.hardware, bad.software, packages, options_of_the_sides(config)]
    about = [row_key, conditions, _content_of(suite)]
    name = hashlib.sha256(msgspec.json.encode(about)).hexdigest()[:12]
    return KEPT / f"bisect-{name}.jsonl"


def commit_row(good: str, bad: str) -> MakeRow:
    """Return what makes the row of commits between two."""
    return lambda config, suite: CommitRow.between(config, suite, good, bad)


def package_row(good: str, bad: str) -> MakeRow:
    """Return what makes the row of packages between two environments."""
    return lambda config, suite: PackageRow.between(config, suite, good, bad)
