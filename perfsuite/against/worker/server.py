"""A side of a comparison: a pytest session that forks a fresh process for each benchmark.

It collects the suite with this side's code and imports all it needs, once. Then, for each
request, it forks a worker, which runs a benchmark as far as the next block to be timed and
waits there for its turn. The server itself touches neither the GPU nor a parallel region, so
that its forks may.
"""

import gc
import importlib
import os
import random
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import numpy as np
import pytest
import torch

from perfsuite.against.messages import Line, LineClosedError
from perfsuite.against.worker.remote_turns import RemoteTurns
from perfsuite.devices.choice import device_of, started_devices
from perfsuite.devices.device import DeviceError, Hardware
from perfsuite.devices.precision import Precision
from perfsuite.judging.thresholds import FILE_NAME, load_thresholds
from perfsuite.measuring.bench import Bench
from perfsuite.measuring.machine import Machine, machine
from perfsuite.records.notes import Notes
from perfsuite.session.collection import MARKERS_THAT_ACT, key_in, suite_above
from perfsuite.session.stash import MACHINE, SESSION
from perfsuite.training.data import DataError, Digits
from perfsuite.training.workload import WORKLOADS, Workload

Look = Callable[[], dict[str, list[str]]]
"""Tells what was imported, by where it came from (`trees.Trees.loaded`)."""


def serve(descriptor: int, arguments: Sequence[str], suite: str, loaded: Look) -> int:
    """Collect, then serve until the other end hangs up; return an exit code.

    Args:
        descriptor: of the socket to the coordinator.
        arguments: of pytest.
        suite: the suite's folder on this side.
        loaded: tells what was imported from where.
    """
    # It was imported to get here, so that its asserts are plain ones, which is all the same.
    plain = "-Wignore:Module already imported:pytest.PytestAssertRewriteWarning"
    return int(
        pytest.main([plain, *arguments], plugins=[Serving(Line(descriptor), Path(suite), loaded)])
    )


class Serving:
    """The plugin that makes a pytest session a server.

    Args:
        line: to the coordinator.
        suite: the folder of the suite.
        loaded: tells what was imported from where.
    """

    def __init__(self, line: Line, suite: Path, loaded: Look) -> None:
        self._line = line
        self._suite = suite
        self._loaded = loaded
        self._errors: dict[str, str] = {}
        self._about: dict[str, Any] = {}
        self._worker: Line | None = None  # in a worker, its own
        self._reports: list[pytest.TestReport] = []
        self._digits: Digits | None = None

    def pytest_configure(self, config: pytest.Config) -> None:
        """Find out what the machine is, in a process of its own: asking starts CUDA."""
        wanted, name = config.getoption("perf_device"), config.getoption("perf_workload")
        self._about = _asked_in_a_fork(lambda: _about(machine(wanted, name)))
        if "error" in self._about:
            raise pytest.UsageError(self._about["error"])
        about = self._about
        device = device_of(torch.device(about["device"]))
        if device.computes_on_host:
            # Two teams of threads on the same cores spin against each other; and no parallel
            # region may be entered before a fork.
            torch.set_num_threads(1)
            about["software"]["threads"] = 1
        config.stash[SESSION] = self
        config.stash[MACHINE] = Machine(
            device=device,
            hardware=msgspec.convert(about["hardware"], Hardware),
            software=about["software"],
            precisions=tuple(map(Precision, about["precisions"])),
            default_workload=WORKLOADS[about["workload"]],
        )

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note why a file or a folder was not collected."""
        if not report.passed:
            self._errors[report.nodeid.partition("::")[0]] = _reason(report)

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
            if "perf" in getattr(item, "fixturenames", ()) and suite_above(item.path) == self._suite
        }
        errors = {
            os.path.relpath(session.config.rootpath / place, self._suite): why
            for place, why in self._errors.items()
        }
        self._line.send(
            "collected",
            items={
                key: sorted({mark.name for mark in item.iter_markers()} - MARKERS_THAT_ACT)
                for key, item in ours.items()
            },
            errors=errors,
            loaded=self._loaded(),
            prefix=sys.prefix,
            **self._about,
        )
        # What every fork would do anew. The first use of an optimizer imports this, for a second.
        importlib.import_module("torch._dynamo")
        if ours and session.config.stash[MACHINE].device.computes_on_host:
            with suppress(DataError):  # told where it is needed
                self._load(session.config)
        # Whatever was imported stays: a fork need not go through it, and so copy it, again.
        gc.collect()
        gc.freeze()
        with suppress(LineClosedError):
            while True:
                request = self._line.receive(shares=True)
                if request["kind"] == "start":
                    theirs = self._line.shared()
                    pid = self._fork(ours[request["key"]], request["index"], theirs)
                    os.close(theirs)  # or nobody would see the worker end
                    self._line.send("started", pid=pid)
                else:
                    _, status = os.waitpid(request["pid"], 0)
                    self._line.send("ended", code=os.waitstatus_to_exitcode(status))
        return True

    def _fail(self, reason: str) -> None:
        with suppress(LineClosedError):
            self._line.send("failed", reason=reason)

    def pytest_sessionfinish(self) -> None:
        """Say that there is nothing to come, if it was not said what there is."""
        self._fail("its pytest session ended")

    def _fork(self, item: pytest.Item, seed: int, theirs: int) -> int:
        pid = _fork()
        if pid == 0:
            os.setpgid(0, 0)  # with whatever it starts, which ends with it
            self._line.close()
            # A fork has inherited the state of its server, which no other restart should.
            random.seed(seed)
            np.random.seed(seed)  # whoever draws from it
            torch.manual_seed(seed)
            self._worker = Line(theirs)
            self._be_worker(self._worker, item)
        return pid

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note what became of the benchmark, in a worker."""
        self._reports.append(report)

    def _be_worker(self, line: Line, item: pytest.Item) -> NoReturn:
        """Run a benchmark, tell what came of it, and end without the server's own clean-up."""
        code = 1
        try:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            line.receive()  # until it is told to go
            unused = "ignore:Benchmark fixture was not used at all"
            item.add_marker(pytest.mark.filterwarnings(unused))
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
            bad = next((report for report in self._reports if not report.passed), None)
            if bad is not None:
                line.send("failed", reason=_reason(bad))
            else:
                line.send("done", record=item.stash[_RECORD], loaded=self._loaded())
            code = 0
        except LineClosedError:
            pass  # whoever asked has gone
        except BaseException:  # told here, since nobody above will
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _load(self, config: pytest.Config) -> Digits:
        if self._digits is None:
            self._digits = config.stash[MACHINE].load(config.getoption("perf_data"))
        return self._digits

    @contextmanager
    def bench(self, item: pytest.Item, workload: Workload) -> Iterator[Bench]:
        """Return what the benchmark works with, in a worker; send what it measured."""
        assert self._worker is not None  # nothing is run in the server
        where = item.config.stash[MACHINE]
        bench = Bench(
            Notes(key_in(self._suite, item), markers=()),
            machine=where,
            workload=workload,
            digits=self._load(item.config),
            thresholds=load_thresholds(self._suite / FILE_NAME, where.hardware.key),
            turns=RemoteTurns(self._worker),
        )
        yield bench
        item.stash[_RECORD] = msgspec.to_builtins(bench.record(), enc_hook=repr)


_RECORD = pytest.StashKey[dict[str, Any]]()


def _reason(report: pytest.CollectReport | pytest.TestReport) -> str:
    """Return the line that says why, of a report that failed or was skipped."""
    if report.skipped and isinstance(report.longrepr, tuple):
        return report.longrepr[2]
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash is not None else str(report.longrepr)
    lines = [line.removeprefix("E ").strip() for line in text.splitlines() if line.strip()]
    if crash is not None:
        return lines[0]
    said = [line.removeprefix("E ").strip() for line in text.splitlines() if line[:2] == "E "]
    return (said or lines or ["no reason was given"])[-1]


def _about(where: Machine) -> dict[str, Any]:
    return {
        "device": str(where.device.place),
        "hardware": asdict(where.hardware),
        "software": where.software,
        "precisions": where.precisions,
        "workload": where.default_workload.name,
    }


def _fork() -> int:
    with warnings.catch_warnings():
        # Python >= 3.12 warns where there are threads: those of OpenBLAS, which is at rest and
        # made to be forked.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _asked_in_a_fork(ask: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """Return what `ask` returns in a process that ends there."""
    reading, writing = os.pipe()
    pid = _fork()
    if pid == 0:
        try:
            answer = ask()
        except DeviceError as error:
            answer = {"error": str(error)}
        except Exception as error:  # whatever the driver says
            answer = {"error": f"{type(error).__name__}: {error}"}
        try:
            with os.fdopen(writing, "wb") as file:
                file.write(msgspec.json.encode(answer))
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        content = file.read()
    os.waitpid(pid, 0)
    if not content:
        return {"error": "the process that was to look at the machine died"}
    decoded: dict[str, Any] = msgspec.json.decode(content)
    return decoded
