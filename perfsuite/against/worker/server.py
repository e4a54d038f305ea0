"""A side's server: a pytest session that forks a fresh process for each run of a benchmark.

It imports this side's code once, and forks a worker for each request. The server itself touches
neither the GPU nor a parallel region, so that its forks may.
"""

import gc
import importlib
import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from concurrent import futures
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from perfsuite.against import messages
from perfsuite.against.messages import REQUESTS, Line, LineClosedError
from perfsuite.against.worker.process import Loaded, Worker, forking, reason
from perfsuite.devices.choice import device_again, started_devices
from perfsuite.devices.device import DeviceError
from perfsuite.measuring.machine import Machine, machine
from perfsuite.session.collection import MARKERS_THAT_ACT, key_in, suite_of_file
from perfsuite.session.fixtures import uses
from perfsuite.session.stash import MACHINE, SESSION
from perfsuite.training.data import DataError
from perfsuite.training.tutorial import digits_on


def serve(descriptor: int, arguments: Sequence[str], suite: str, loaded: Loaded) -> int:
    """Collect by pytest's `arguments`, serve until the other end hangs up; return an exit code."""
    # Nothing of perfsuite's own, which was imported to get here, relies on rewritten asserts.
    plain = "-Wignore:Module already imported:pytest.PytestAssertRewriteWarning"
    return int(pytest.main([plain, *arguments], plugins=[Server(descriptor, Path(suite), loaded)]))


class Server:
    """The plugin that makes a pytest session a server; its arguments are those of `serve`."""

    def __init__(self, descriptor: int, suite: Path, loaded: Loaded) -> None:
        self._line = Line(descriptor, REQUESTS)
        self._suite = suite
        self._loaded = loaded
        self._errors: dict[str, str] = {}

    def pytest_configure(self, config: pytest.Config) -> None:
        """Find out what the machine is, in a process of its own: asking starts CUDA."""
        option = config.option
        context = multiprocessing.get_context("fork")
        with futures.ProcessPoolExecutor(1, mp_context=context) as pool, forking():
            asked = pool.submit(_about, option.perf_device)
            try:
                about, place = asked.result()
            except DeviceError as error:
                raise pytest.UsageError(str(error)) from None
            except Exception as error:  # whatever the driver says, if it says anything
                raise pytest.UsageError(f"{type(error).__name__}: {error}") from None
        self._machine = Machine(**about, device=device_again(option.perf_device, place))
        if self._machine.device.computes_on_host:
            # Two teams of threads on the same cores spin against each other; and no parallel
            # region may be entered before a fork.
            torch.set_num_threads(1)
            self._machine.software["threads"] = 1
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
        with suppress(LineClosedError):
            self._serve(ours)
        return True

    def _serve(self, ours: Mapping[str, pytest.Item]) -> None:
        while True:
            match self._line.receive():
                case messages.Start(key=key, index=index):
                    theirs = self._line.shared()
                    with forking():
                        pid = os.fork()
                    if pid == 0:
                        self._line.close()
                        item = ours[key]
                        worker = Worker(Line(theirs, REQUESTS), self._suite, self._loaded)
                        worker.run(item, seed=index)
                    os.close(theirs)  # or nobody would see the worker end
                    self._line.send(messages.Started(pid=pid))
                case messages.Wait(pid=pid):
                    _, status = os.waitpid(pid, 0)
                    self._line.send(messages.Ended(code=os.waitstatus_to_exitcode(status)))

    def _fail(self, why: str) -> None:
        with suppress(LineClosedError):
            self._line.send(messages.Failed(reason=why))

    def pytest_sessionfinish(self) -> None:
        """Say that there is nothing to come, if it was not said what there is."""
        self._fail("its pytest session ended")


def _about(wanted: str) -> tuple[dict[str, Any], torch.device]:
    """Return what `Machine` is made of; of its device the place."""
    found = machine(wanted)
    about = {name: getattr(found, name) for name in ("hardware", "software", "precisions")}
    return about, found.device.place
