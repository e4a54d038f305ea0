"""A fresh process that takes the first step of a benchmark's training, and nothing else.

``python -P -m perfsuite.session.fresh_process FILE ARGUMENTS`` is a pytest session of that one
benchmark: its workload is made as any other session makes it.
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn

import msgspec
import pytest

from perfsuite.devices.precision import Precision
from perfsuite.measuring.compiler import lacks_compiler
from perfsuite.measuring.first_step import FirstStep, take_first_step
from perfsuite.session.measured_on import machine_of
from perfsuite.session.stash import NOT_INHERITED, SESSION
from perfsuite.training.batches import TrainingError
from perfsuite.training.workload import Workload


def in_fresh_process(item: pytest.Item, variables: Mapping[str, str]) -> FirstStep:
    """Have a fresh process take the first step of a benchmark; TrainingError if it cannot."""
    if machine_of(item.config).ranks.many:
        raise TrainingError("a fresh process is of one rank: mark the benchmark one_rank")
    # What is imported here is to be found there, and in the same order.
    environment = {name: each for name, each in os.environ.items() if name not in NOT_INHERITED}
    environment |= {"PYTHONPATH": os.pathsep.join(sys.path), **variables}
    if (threads := machine_of(item.config).software.get("threads")) is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
    with TemporaryDirectory(prefix="perfsuite-") as folder:
        path = Path(folder) / "first_step.json"
        command = [sys.executable, "-P", "-m", __name__, str(path), *_arguments(item)]
        done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
        if not path.exists():
            lines = [f"it ended with code {done.returncode}", *done.stderr.splitlines()]
            lines += [line for line in done.stdout.splitlines() if line.strip()]
            errors = [line.removeprefix("E ") for line in lines if line.startswith(("E ", "ERROR"))]
            why = (errors or lines)[-1].strip()
            raise TrainingError(f"a fresh process could not take the first step: {why}")
        return msgspec.json.decode(path.read_bytes(), type=FirstStep)


def _arguments(item: pytest.Item) -> list[str]:
    """Return pytest's arguments for this benchmark alone, without those added from elsewhere."""
    config = item.config
    options = [f"--rootdir={config.rootpath}", f"--import-mode={config.getoption('importmode')}"]
    if config.inipath is not None:
        options += ["-c", str(config.inipath)]
    for name in ("perf_device", "perf_workload", "perf_data"):
        if (value := config.getoption(name)) is not None:
            options.append(f"--{name.replace('_', '-')}={value}")
    for value in (*(config.getoption("override_ini") or ()), "addopts="):
        options += ["-o", value]
    for plugin in config.getoption("plugins") or ():
        options += ["-p", plugin]
    _, _, names = item.nodeid.partition("::")
    return [*options, "-p", "no:cacheprovider", f"{item.path}::{names}"]


class _FirstStepOnly:
    """The plugin that gives a benchmark no `Bench`, but takes the first step in its place."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def pytest_configure(self, config: pytest.Config) -> None:
        config.stash[SESSION] = self

    @contextmanager
    def bench(self, item: pytest.Item, workload: Workload) -> Iterator[NoReturn]:
        device = machine_of(item.config).device
        given = getattr(item, "callspec", None)
        values = [] if given is None else given.params.values()
        precision = next((each for each in values if isinstance(each, Precision)), Precision.fp32)
        arm = workload.arm(precision, device.place)
        try:
            found = take_first_step(arm, device.clock())
        except Exception as error:
            if not lacks_compiler(error):
                raise
            found = FirstStep(no_compiler=True)
        self._path.write_bytes(msgspec.json.encode(found))
        pytest.skip("the first step was all")
        yield  # type: ignore[unreachable]  # what makes it a context


def _main(path: str, arguments: Sequence[str]) -> int:
    known = {entry.value for entry in entry_points(group="pytest11")} | {*arguments}
    own = [] if "perfsuite.plugin" in known else ["-p", "perfsuite.plugin"]
    # Nothing of perfsuite's own relies on rewritten asserts.
    plain = "-Wignore:Module already imported:pytest.PytestAssertRewriteWarning"
    return int(pytest.main([plain, *own, *arguments], plugins=[_FirstStepOnly(Path(path))]))


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1], sys.argv[2:]))
