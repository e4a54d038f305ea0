"""Promotion: make runs the baseline of their hardware."""

import contextlib
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from perfsuite.judging.contamination import contamination
from perfsuite.judging.thresholds import FILE_NAME
from perfsuite.records.baseline import BaselineError, baseline_folder
from perfsuite.records.chain import CHAIN_FILE, Promotion, encode_chain, read_chain, with_runs
from perfsuite.records.files import write_new, write_part
from perfsuite.records.git import HASH
from perfsuite.records.schema import Run, RunError, read_run


def promote(
    paths: Sequence[Path],
    suite: Path,
    *,
    replace: bool = False,
    allow_dirty: bool = False,
    allow_busy: bool = False,
) -> list[Path]:
    """Make runs the baseline of their hardware, all or none; return the files in the baseline.

    `replace` removes all promoted runs that are not among these; `allow_dirty` accepts runs of a
    tree with uncommitted changes, or without version control, `allow_busy` those beside which
    others used the cores, on a machine that is never quiet. Raises BaselineError where a run
    must not become a baseline, RunError where a file is not a valid run.
    """
    if not (suite / FILE_NAME).is_file() and not any(suite.glob("test_*.py")):
        raise BaselineError(
            f"{suite}: not a suite: it holds neither {FILE_NAME} nor a benchmark; name the suite's"
            " folder with --suite"
        )
    runs = [read_run(path) for path in paths]
    for run in runs:
        if why := _refused(run, allow_dirty=allow_dirty, allow_busy=allow_busy):
            raise BaselineError(f"{run.path}: refused: {why}")
    replaced: list[Path] = []
    chains: dict[Path, bytes] = {}
    for hardware in sorted({run.hardware for run in runs}):
        mine = [run for run in runs if run.hardware == hardware]
        commits = {run.commit for run in mine}
        if len(commits) > 1:
            found = ", ".join(sorted(commit[:12] for commit in commits))
            raise BaselineError(
                f"{hardware}: runs of several commits ({found}): promote those of one"
            )
        folder = baseline_folder(suite, hardware)
        there, gone = _promoted(folder, commits, replace=replace)
        given = {_target(run, suite) for run in mine}
        kept = [run for run in there if run.path in given or not replace]
        gone += [run.path for run in there if run not in kept]
        replaced += gone
        _refuse_other_batches([*kept, *mine])
        chain = _chain(folder, there, [*kept, *mine], anew=bool(gone))
        chains[folder / CHAIN_FILE] = encode_chain(chain)
    targets = {_target(run, suite): run for run in runs}
    # The name holds a digest of the content: if it is taken, this very run was promoted before.
    new = [path for path in targets if not path.exists()]
    parts: dict[Path, Path] = {}
    try:
        for path, content in chains.items():
            parts[path] = write_part(path, content)
        for path in new:
            with contextlib.suppress(FileExistsError):
                write_new(path, targets[path].content)
        for path, part in parts.items():
            part.replace(path)
    except OSError:
        for path in (*new, *parts.values()):
            path.unlink(missing_ok=True)
        raise
    for path in replaced:
        path.unlink(missing_ok=True)
    return list(targets)


def _refused(run: Run, *, allow_dirty: bool, allow_busy: bool) -> str | None:
    """Return why a run must not become a baseline, None if it may."""
    if faults := run.faults():
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        return f"{faults[0]}{more}"
    if not allow_dirty and (run.dirty or not HASH.fullmatch(run.commit)):
        state = "had uncommitted changes" if run.dirty else f"is of commit {run.commit!r}"
        return f"its tree {state}; commit and run again, or --allow-dirty"
    for each in () if allow_busy else run.benchmarks.values():
        if busy := contamination(each.state, {}, promoted=()).disturbed:
            return (
                f"{each.key} was measured beside other work: {'; '.join(busy)}; run it again on a"
                " quiet machine, or --allow-busy, if it is always like this"
            )
    return None


def _refuse_other_batches(runs: Sequence[Run]) -> None:
    """Raise BaselineError where runs found other batches to keep the device busy."""
    found: dict[str, int] = {}
    for run in runs:
        for key, benchmark in run.benchmarks.items():
            if (doublings := benchmark.config.get("doublings")) is None:
                continue
            if found.setdefault(key, doublings) != doublings:
                raise BaselineError(
                    f"{run.path}: refused: {key} took a batch x{2**doublings}, and another run one"
                    f" x{2 ** found[key]}: promote one run, and measure the others with"
                    " --benchmark-compare, so that they take its batch"
                )


def _promoted(folder: Path, commits: set[str], *, replace: bool) -> tuple[list[Run], list[Path]]:
    """Return the runs that are promoted now, and what to `replace` that cannot be read any more.

    Raises BaselineError where there are runs of another commit, and none are to be replaced.
    """
    runs, unreadable = [], []
    for path in sorted(folder.glob("*.json")):
        try:
            runs.append(read_run(path))
        except RunError:
            if not replace:
                raise
            unreadable.append(path)
            continue
        if not replace and (old := runs[-1].commit) not in commits:
            raise BaselineError(
                f"{folder}: the baseline is of commit {old[:12]}, these runs are of"
                f" {min(commits)[:12]}; --replace removes the old ones"
            )
    return runs, unreadable


def _chain(
    folder: Path, there: Sequence[Run], new: Sequence[Run], *, anew: bool
) -> list[Promotion]:
    """Return the chain of a folder with what is promoted now as its end.

    Where it takes the place of other runs (`anew`), they stay the entry before, whatever their
    commit: a new driver or torch changes figures too.
    """
    chain = read_chain(folder)
    if anew and len({run.commit for run in there}) == 1:  # from before there was a chain, perhaps
        chain = with_runs(chain, there)
    return with_runs(chain, list({run.content: run for run in new}.values()), anew=anew)


def _target(run: Run, suite: Path) -> Path:
    stamp = re.sub(r"[^0-9T]", "", run.started.split("+")[0].split(".")[0])
    digest = hashlib.sha256(run.content).hexdigest()[:8]
    name = f"{stamp}-{run.commit[:12]}-{digest}.json"
    return baseline_folder(suite, run.hardware) / name
