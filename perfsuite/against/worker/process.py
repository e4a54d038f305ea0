"""A worker: a fork of the server that runs one benchmark, as far as the next block to be timed."""

import os
import random
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import numpy as np
import pytest
import torch

from perfsuite.against.messages import Done, LineClosedError, Ready, TriedOut, Try
from perfsuite.against.worker.rank_forks import SAID_WHY, Rendezvous
from perfsuite.against.worker.remote_turns import RemoteTurns, WorkerLine
from perfsuite.devices.ranks import ranks
from perfsuite.judging.thresholds import FILE_NAME, load_thresholds
from perfsuite.measuring.batch_tries import try_batch
from perfsuite.measuring.bench import Bench
from perfsuite.measuring.machine import machine_of_fork
from perfsuite.records.notes import Notes
from perfsuite.session.collection import key_in
from perfsuite.session.stash import MACHINE, SESSION, TRIES
from perfsuite.session.together import record_of_ranks
from perfsuite.training.workload import Workload

Loaded = Callable[[], dict[str, list[str]]]  # `import_paths.Trees.loaded`


class Worker:
    """The plugin that runs one benchmark in a fork, and gives it its `Bench`.

    Args:
        config: what the benchmark is to keep to, as in a run's JSON; see `Bench.promoted`.
    """

    def __init__(
        self, line: WorkerLine, suite: Path, loaded: Loaded, config: Mapping[str, Any]
    ) -> None:
        self._line = line
        self._suite = suite
        self._loaded = loaded
        self._config = config
        self._record: dict[str, Any] = {}
        self._failure: str | None = None

    def run(self, item: pytest.Item, seed: int, rendezvous: Rendezvous | None) -> NoReturn:
        """Run a benchmark, tell what came of it, and end without the server's own clean-up.

        Where there are several ranks, they meet at the `rendezvous` once they are told to go.
        """
        code = 1
        try:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            # A fork has inherited the state of its server, which no other restart should.
            random.seed(seed)
            np.random.seed(seed)  # whoever draws from it
            torch.manual_seed(seed)
            item.config.stash[SESSION] = self
            item.config.stash[TRIES] = self._try
            item.config.pluginmanager.register(self, "perfsuite-worker")
            unused = "ignore:Benchmark fixture was not used at all"
            item.add_marker(pytest.mark.filterwarnings(unused))
            if self._line.seat.leads:
                self._line.receive()  # until it is told to go
            if rendezvous is not None:
                self._join(item.config, rendezvous)
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
            if self._failure is None:
                ranks().meet()  # none fails any more, not even as it ends its fixtures
                self._line.send(Done(record=self._record, loaded=self._loaded()))
                code = 0
            else:
                code = self._tell(self._failure)
        except LineClosedError:
            pass  # the coordinator has gone
        except BaseException as error:  # told here, since nobody above will
            traceback.print_exc()
            if rendezvous is not None:  # or it would look as if it had not been another's fault
                code = self._tell(f"{type(error).__name__}: {error}".partition("\n")[0])
        finally:
            _end(code)

    def _join(self, config: pytest.Config, rendezvous: Rendezvous) -> None:
        """Join the other ranks."""
        at = self._line.seat
        os.environ.update(rendezvous.environment(at))
        wanted, known = config.getoption("perf_device"), config.stash[MACHINE]
        config.stash[MACHINE] = machine_of_fork(known, wanted, at, rendezvous.store(at))

    def _tell(self, reason: str) -> int:
        """Tell why it failed; return the exit code of one that did."""
        self._line.fail(reason)
        return SAID_WHY

    def _try(self, perf: Bench) -> NoReturn:
        """Try, once, what the coordinator says, before the benchmark has made anything."""
        self._line.send(Ready(what="a batch"))
        request = self._line.receive()
        assert isinstance(request, Try)  # nothing else is asked after that
        self._line.send(TriedOut(tried=try_batch(perf, request.attempt)))
        self._line.receive()  # until the coordinator hangs up
        raise AssertionError("a process tries one batch")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note why the benchmark failed, or was skipped."""
        if self._failure is None and not report.passed:
            self._failure = reason(report)
            if self._line.seat.ranks > 1:  # the others wait for it, and would do so for ever
                _end(self._tell(self._failure))

    @contextmanager
    def bench(self, item: pytest.Item, workload: Workload) -> Iterator[Bench]:
        """Return what the benchmark works with, and keep what it measured."""
        where = item.config.stash[MACHINE]
        bench = Bench(
            Notes(key_in(self._suite, item), markers=()),
            machine=where,
            workload=workload,
            thresholds=load_thresholds(self._suite / FILE_NAME, where.hardware.key),
            turns=RemoteTurns(self._line, one_tree=item.get_closest_marker("one_tree") is not None),
            promoted=self._config,
        )
        yield bench
        self._record = msgspec.to_builtins(record_of_ranks(ranks(), bench.record()), enc_hook=repr)


def _end(code: int) -> NoReturn:
    """End this fork, without what its server does at its own end."""
    with suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def reason(report: pytest.CollectReport | pytest.TestReport) -> str:
    """Return the line that says why, of a report that failed or was skipped."""
    if report.skipped and isinstance(report.longrepr, tuple):
        return report.longrepr[2]
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash is not None else str(report.longrepr)
    lines = [line for line in text.splitlines() if line.strip()]
    if crash is None:
        errors = [line for line in lines if line.startswith("E ")]
        lines = (errors or lines or ["no reason was given"])[-1:]
    return lines[0].removeprefix("E ").strip()
