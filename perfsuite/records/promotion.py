"""Promotion: make runs the baseline of their hardware."""

import contextlib
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from perfsuite.judging.thresholds import FILE_NAME
from perfsuite.records.baseline import BaselineError, baseline_folder
from perfsuite.records.files import write_new
from perfsuite.records.git import HASH
from perfsuite.records.schema import Run, RunError, read_run


def promote(
    paths: Sequence[Path], suite: Path, *, replace: bool = False, allow_dirty: bool = False
) -> list[Path]:
    """Make runs the baseline of their hardware, all or none; return the files in the baseline.

    `replace` removes promoted runs of another commit; `allow_dirty` accepts runs of a tree with
    uncommitted changes, or without version control. Raises BaselineError where a run must not
    become a baseline, RunError where a file is not a valid run.
    """
    if not (suite / FILE_NAME).is_file() and not any(suite.glob("test_*.py")):
        raise BaselineError(
            f"{suite}: not a suite: it holds neither {FILE_NAME} nor a benchmark; name the suite's"
            " folder with --suite"
        )
    runs = [read_run(path) for path in paths]
    for run in runs:
        if faults := run.faults():
            more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
            raise BaselineError(f"{run.path}: refused: {faults[0]}{more}")
        if not allow_dirty and (run.dirty or not HASH.fullmatch(run.commit)):
            state = "had uncommitted changes" if run.dirty else f"is of commit {run.commit!r}"
            raise BaselineError(
                f"{run.path}: refused: its tree {state}; commit and run again, or --allow-dirty"
            )
    replaced: list[Path] = []
    for hardware in sorted({run.hardware for run in runs}):
        commits = {run.commit for run in runs if run.hardware == hardware}
        if len(commits) > 1:
            found = ", ".join(sorted(commit[:12] for commit in commits))
            raise BaselineError(
                f"{hardware}: runs of several commits ({found}): promote those of one"
            )
        replaced += _replaced(baseline_folder(suite, hardware), commits, replace=replace)
    targets = {_target(run, suite): run for run in runs}
    # The name holds a digest of the content: if it is taken, this very run was promoted before.
    new = [path for path in targets if not path.exists()]
    try:
        for path in new:
            with contextlib.suppress(FileExistsError):
                write_new(path, targets[path].content)
    except OSError:
        for path in new:
            path.unlink(missing_ok=True)
        raise
    for path in replaced:
        path.unlink(missing_ok=True)
    return list(targets)


def _replaced(folder: Path, commits: set[str], *, replace: bool) -> list[Path]:
    if replace:
        # What cannot be read any more is removed too: this is the way out of it.
        return [path for path in folder.glob("*.json") if _commit_of(path) not in commits]
    for path in sorted(folder.glob("*.json")):
        if (old := read_run(path).commit) not in commits:
            raise BaselineError(
                f"{folder}: the baseline is of commit {old[:12]}, these runs are of"
                f" {min(commits)[:12]}; --replace removes the old ones"
            )
    return []


def _commit_of(path: Path) -> str | None:
    try:
        return read_run(path).commit
    except RunError:
        return None


def _target(run: Run, suite: Path) -> Path:
    stamp = re.sub(r"[^0-9T]", "", run.started.split("+")[0].split(".")[0])
    digest = hashlib.sha256(run.content).hexdigest()[:8]
    name = f"{stamp}-{run.commit[:12]}-{digest}.json"
    return baseline_folder(suite, run.hardware) / name
