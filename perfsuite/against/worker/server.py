"""A side's server: a pytest session that forks a fresh process for each run of a benchmark.

It imports this side's code once, and forks a worker for each request. The server itself touches
neither the GPU nor a parallel region, so that its forks may.
"""

import gc
import importlib
import multiprocessing
import os
import sys
from collections.abc import Sequence
from concurrent import futures
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch

from perfsuite.against import messages
from perfsuite.against.messages import REQUESTS, Line, LineClosedError, Start
from perfsuite.against.worker.process import Loaded, Worker, reason
from perfsuite.against.worker.rank_forks import Rendezvous, forking, serve_restarts
from perfsuite.against.worker.remote_turns import WorkerLine
from perfsuite.devices.choice import device_again, started_devices
from perfsuite.devices.device import DeviceError
from perfsuite.devices.host import usable_cpus
from perfsuite.devices.torchrun import RankError, Seat
from perfsuite.measuring.machine import Machine, machine_at
from perfsuite.session.collection import MARKERS_THAT_ACT, key_in, suite_of_file
from perfsuite.session.fixtures import uses
from perfsuite.session.stash import MACHINE, SESSION
from perfsuite.training.data import DataError
from perfsuite.training.tutorial import digits_on


def serve(descriptor: int, arguments: Sequence[str], suite: str, loaded: Loaded, ranks: int) -> int:
    """Collect by pytest's `arguments`, serve until the other end hangs up; return an exit code."""
    # Nothing of perfsuite's own, which was imported to get here, relies on rewritten asserts.
    plain = "-Wignore:Module already imported:pytest.PytestAssertRewriteWarning"
    server = Server(descriptor, Path(suite), loaded, ranks)
    return int(pytest.main([plain, *arguments], plugins=[server]))


class Server:
    """The plugin that makes a pytest session a server; its arguments are those of `serve`."""

    def __init__(self, descriptor: int, suite: Path, loaded: Loaded, ranks: int) -> None:
        self._line = Line(descriptor, REQUESTS)
        self._suite = suite
        self._loaded = loaded
        self._ranks = ranks
        self._errors: dict[str, str] = {}

    def pytest_configure(self, config: pytest.Config) -> None:
        """Find out what the machine is, in a process of its own: asking starts CUDA."""
        option = config.option
        option.perf_ranks = self._ranks  # by which benchmarks are left out
        context = multiprocessing.get_context("fork")
        with futures.ProcessPoolExecutor(1, mp_context=context) as pool, forking():
            asked = pool.submit(_about, option.perf_device, self._ranks)
            try:
                about, place = asked.result()
            except (DeviceError, RankError) as error:
                raise pytest.UsageError(str(error)) from None
            except Exception as error:  # whatever the driver says, if it says anything
                raise pytest.UsageError(f"{type(error).__name__}: {error}") from None
        self._machine = Machine(**about, device=device_again(option.perf_device, place))
        if self._machine.device.computes_on_host:
            # Two teams of threads on the same cores spin against each other; and no parallel
            # region may be entered before a fork.
            share = min(torch.get_num_threads(), len(usable_cpus()) // self._ranks)
            self._machine.software["threads"] = max(share, 1) if self._ranks > 1 else 1
            torch.set_num_threads(1)
        config.stash[SESSION] = self
        config.stash[MACHINE] = self._machine

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note why a file or a folder was not collected."""
        if not report.passed:
            self._errors[report.nodeid.partition("::")[0]] = reason(report)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Say what there is, then serve."""
        if started := started_devices():
            self._fail(
                f"importing the benchmarks starts {started[0]}, so that no fresh process can be"
                " forked: use the device in fixtures and in benchmarks only"
            )
            return True
        ours = {
            key_in(self._suite, item): item
            for item in session.items
            if uses(item) and suite_of_file(item.path) == self._suite
        }
        collected = messages.Collected(
            items={
                key: sorted({mark.name for mark in item.iter_markers()} - MARKERS_THAT_ACT)
                for key, item in ours.items()
            },
            errors={
                os.path.relpath(session.config.rootpath / place, self._suite): why
                for place, why in self._errors.items()
            },
            prefix=sys.prefix,
            hardware=asdict(self._machine.hardware),
            software=self._machine.software,
            loaded=self._loaded(),
        )
        self._line.send(collected)
        # What every fork would do anew: the first use of an optimizer imports the one, for a
        # second, the fixture `workload` the other; and then it is looked where they came from.
        importlib.import_module("torch._dynamo")
        importlib.import_module("perfsuite.session.one_tree")
        self._loaded()
        on_host = self._machine.device.computes_on_host
        if on_host and any(uses(item, "workload") for item in ours.values()):
            with suppress(DataError):  # told where it is needed
                digits_on(session.config.getoption("perf_data"), self._machine.device.place)
        # Whatever was imported stays: a fork need not go through it, and so copy it, again.
        gc.collect()
        gc.freeze()

        def work(start: Start, theirs: int, at: Seat, rendezvous: Rendezvous | None) -> NoReturn:
            self._line.close()
            worker = Worker(WorkerLine(theirs, at), self._suite, self._loaded, start.config)
            worker.run(ours[start.key], start.index, rendezvous)

        serve_restarts(self._line, self._ranks, work)
        return True

    def _fail(self, why: str) -> None:
        with suppress(LineClosedError):
            self._line.send(messages.Failed(reason=why))

    def pytest_sessionfinish(self) -> None:
        """Say that there is nothing to come, if it was not said what there is."""
        self._fail("its pytest session ended")


def _about(wanted: str, ranks: int) -> tuple[dict[str, Any], torch.device]:
    """Return what `Machine` is made of; of its device the place."""
    last = ranks - 1  # if it has a device of its own, all have
    found = machine_at(wanted, Seat(rank=last, ranks=ranks, local_rank=last, local_ranks=ranks))
    about = {name: getattr(found, name) for name in ("hardware", "software", "precisions")}
    return about, found.device.place
