"""`--perf-ranks N`: a session that has torchrun start N ranks of it, and ends as their rank 0 does.

What rank 0 prints is what the user reads; torchrun and the other ranks print to files, of which one
is named where it helps. This process imports no torch.
"""

import atexit
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from perfsuite.devices.host import usable_cpus
from perfsuite.devices.torchrun import RankError, seat
from perfsuite.records.wording import ending
from perfsuite.session.stash import LAUNCHER, RANK_FILES

_END_S = 5.0  # for so long ranks may take to end once they are told to
_SPEECH_S = 10.0  # for so long other ranks wait at their end for rank 0, which may speak
_SPOKEN = "spoken"
_ERROR = "ERROR: "


def launches(options: Namespace) -> bool:
    """Tell whether this session starts ranks, and is none of them.

    Raises:
        UsageError: it cannot.
    """
    asked = options.perf_ranks
    try:
        at = seat()
    except RankError as error:
        raise pytest.UsageError(str(error)) from None
    if at.ranks > 1 and asked != at.ranks:
        raise pytest.UsageError(
            f"--perf-ranks {asked}: torchrun has started {at.ranks} ranks; drop the option, which"
            " starts torchrun by itself"
        )
    if asked == 1 or at.ranks > 1:
        return False
    if getattr(options, "dist", "no") != "no" or getattr(options, "numprocesses", None):
        raise pytest.UsageError("--perf-ranks cannot measure under xdist; run with -n0")
    if getattr(options, "usepdb", False) or getattr(options, "trace", False):
        raise pytest.UsageError(
            "--perf-ranks: ranks have no terminal for a debugger; drop --pdb and --trace"
        )
    return True


def launch(config: pytest.Config, ranks: int) -> int:
    """Run this session in so many ranks; return rank 0's exit code."""
    folder = Path(tempfile.mkdtemp(prefix="perfsuite-ranks-"))
    word, others = folder / "ended.json", [f"{rank}:3" for rank in range(1, ranks)]
    threads = max(1, len(usable_cpus()) // ranks)
    # All ranks have sets in the same order.
    environment = {"OMP_NUM_THREADS": str(threads), "PYTHONHASHSEED": "0", **os.environ}
    if not {"", str(Path.cwd())} & {*sys.path}:  # torchrun would add what this session does without
        environment["PYTHONSAFEPATH"] = "1"
    environment |= {LAUNCHER: str(os.getpid()), RANK_FILES: str(folder)}
    command = [
        *(sys.executable, "-P", "-m", "perfsuite.devices.rank_agent", str(word)),
        *("--standalone", f"--nproc-per-node={ranks}"),
        *(f"--log-dir={folder}", f"--redirects={','.join(['0:2', *others])}"),
        *("-m", "pytest", *config.invocation_params.args),
    ]
    log = folder / "torchrun.log"
    with log.open("wb") as output, _terminated_as_interrupted():
        process = subprocess.Popen(
            command,
            cwd=config.invocation_params.dir,
            env=environment,
            stdin=subprocess.DEVNULL,
            stderr=output,
            start_new_session=True,  # Ctrl-C is this process's, which ends them all
        )
        try:
            shown = _wait(process, folder)
        except KeyboardInterrupt:
            _end(process)
            shutil.rmtree(folder, ignore_errors=True)
            _say(f"interrupted: all {ranks} ranks have ended, and no run is written")
            return pytest.ExitCode.INTERRUPTED
    failed = [tuple(each) for each in json.loads(word.read_text())] if word.exists() else None
    code, lines = _outcome(failed, ranks, folder, shown)
    for line in lines:
        _say(line)
    if not any(str(folder) in line for line in lines):
        shutil.rmtree(folder, ignore_errors=True)
    return code


def take_part() -> None:
    """In a rank that was started so: let rank 0 speak to its end before another one's end ends it.

    torchrun ends all ranks as soon as one of them fails.
    """
    folder = os.environ.pop(RANK_FILES)  # what a rank starts is none
    spoken = Path(folder) / _SPOKEN
    atexit.register(_end_in_turn, spoken, leads=seat().leads)


def _end_in_turn(spoken: Path, *, leads: bool) -> None:
    if leads:
        spoken.touch()
    end_s = time.monotonic() + _SPEECH_S
    while not spoken.exists() and time.monotonic() < end_s:
        time.sleep(0.05)


def _wait(process: "subprocess.Popen[bytes]", folder: Path) -> str:
    """Wait for the end, and show meanwhile what rank 0 prints as errors; return that."""
    shown = ""
    while True:
        try:
            ended = process.wait(0.1) is not None
        except subprocess.TimeoutExpired:
            ended = False
        said = _errors(folder, 0)
        sys.stderr.write(said[len(shown) :])
        sys.stderr.flush()
        shown = said
        if ended:
            return shown


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End torchrun and its ranks, by force those that do not end."""
    former = signal.signal(signal.SIGINT, signal.SIG_IGN)
    started = []
    with suppress(psutil.Error):
        started = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(_END_S)
    _, left = psutil.wait_procs(started, timeout=0.1)
    for each in left:
        with suppress(psutil.Error):
            each.kill()
    process.kill()
    process.wait()
    signal.signal(signal.SIGINT, former)


def _outcome(
    failed: list[tuple[int, int]] | None, ranks: int, folder: Path, shown: str
) -> tuple[int, list[str]]:
    """Return the exit code, and lines that say what no rank has said to the user itself.

    `failed` has rank and exit code of those that failed, the first first; None if torchrun did.
    """
    if failed is None:
        return pytest.ExitCode.INTERNAL_ERROR, [f"torchrun has failed: {folder / 'torchrun.log'}"]
    if not failed:
        return pytest.ExitCode.OK, []
    rank, code = failed[0]
    own = dict(failed).get(0, 0)
    told = {line for each in range(ranks) for line in _told(_errors(folder, each))}
    if told and code > 0:  # a signal says more than who missed the rank
        lines = sorted(told - set(_told(shown)))
    elif rank == 0 and code > 0:
        lines = []
    else:
        said = [line for line in _errors(folder, rank).splitlines() if line.strip()]
        last = f", saying: {said[-1].strip()}" if said and code > 0 else ""
        lines = [f"rank {rank} of {ranks} ended with {ending(code)}{last}; see {folder}"]
    return own if own > 0 else max(code, 1), lines


def _errors(folder: Path, rank: int) -> str:
    found = folder.glob(f"*/attempt_0/{rank}/stderr.log")
    return "".join(path.read_text("utf-8", errors="replace") for path in found)


def _told(text: str) -> list[str]:
    return [line.removeprefix(_ERROR) for line in text.splitlines() if line.startswith(_ERROR)]


def _say(line: str) -> None:
    sys.stdout.flush()
    sys.stderr.write(f"\n{_ERROR}{line}\n")


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Let SIGTERM do what Ctrl-C does: ranks are no part of this process's group."""
    former = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)
