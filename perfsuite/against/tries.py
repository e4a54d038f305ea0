"""Tries of a batch, each in a fresh process of the working tree: one that fails leaves no trace."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from perfsuite.against.comparison import working_tree
from perfsuite.against.controllers import ServerController, SideError
from perfsuite.judging.fitting import Attempt, Fits, Tried
from perfsuite.training.batches import TrainingError


@contextmanager
def fresh_processes(config: pytest.Config, suite: Path, key: str) -> Iterator[Fits]:
    """Start a server, of which each try of the benchmark `key` is a fork."""
    try:
        with working_tree(config, suite) as server:
            yield lambda attempt: in_a_fresh_process(server, key, attempt)
    except SideError as error:
        pytest.fail(f"a batch cannot be tried in a fresh process: {error.reason}", pytrace=False)


def in_a_fresh_process(server: ServerController, key: str, attempt: Attempt) -> Tried:
    """Return what comes of a try; a process that the system kills had not enough memory.

    Raises:
        TrainingError: it failed for another reason.
    """
    try:
        with server.start(key, 0, lambda *_: None) as worker:
            worker.go()
            return worker.tries(attempt)
    except SideError as error:
        if error.killed:
            return Tried(peak_bytes=None, why_not=error.reason)
        what = f"{attempt.samples} samples in {attempt.precision} could not be tried"
        raise TrainingError(f"{what}: {error.reason}") from None
