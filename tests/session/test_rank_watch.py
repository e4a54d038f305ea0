"""Ranks that are real processes: what befalls one of them ends all, and why is said in one line."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import psutil
import pytest
from suites import load

pytestmark = pytest.mark.slow

LONG_S = 600.0  # for what takes seconds on a machine that does nothing else
CONFTEST = """
import os
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from perfsuite.judging import rank_faults
from perfsuite.session.rank_watch import RankWatch


@pytest.fixture
def steps(perf):
    def step(number):
        if number == 5 and (name := os.environ.get("IN_THE_MIDDLE")):
            Path(f"{dist.get_rank()}.pid").write_text(str(os.getpid()))
            load(name)
        dist.all_reduce(torch.ones(()))

    def load(name):
        # From here on all that is left to do is to end; until here a machine may be slow.
        rank_faults.PATIENCE_S, rank_faults.SILENT_S, RankWatch.hang_s = 2.0, 8.0, 8.0
        if name == "wait":
            time.sleep(3600)
        if dist.get_rank() == 1 and name == "raise":
            raise ValueError("a batch that is none")
        if dist.get_rank() == 1 and name == "hang":
            time.sleep(3600)

    def take():
        for number in range(10):
            step(number)
        perf.timed([0.01] * 5)
        perf.metric("step_s", 0.01, unit="s", better="lower")

    return take
"""
SUITE = """
import torch.distributed as dist


def test_steps(steps):
    steps()
"""
RED = """

def test_red_on_rank_1(steps):
    steps()
    assert dist.get_rank() == 0, "weights that drift apart"
"""

LEDGER = """
torch = "{torch}"
device = "cpu"
[benchmark."test_all.py::test_ledger".about]
"workload" = "mine"
[benchmark."test_all.py::test_ledger".counts]
"parameters" = 1
"""


def free_port() -> int:
    """Return a free port below those that the system hands out to whoever asks for any."""
    for port in random.sample(range(20_000, 32_000), 100):
        with socket.socket() as one, suppress(OSError):
            one.bind(("localhost", port))
            return port
    raise OSError("no port is free")


@dataclass
class RankSession:
    """Two ranks of a suite, in a folder of their own."""

    folder: Path
    marker: str = field(default_factory=lambda: uuid.uuid4().hex)
    started: list["subprocess.Popen[str]"] = field(default_factory=list)

    def start(self, *options: str, **environment: str) -> "subprocess.Popen[str]":
        """Start a session that saves run.json."""
        plain = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-p", "no:xdist")
        saved = ("--perf-device=cpu", "--benchmark-json=run.json")
        kept = self.folder / "kept"
        kept.mkdir(exist_ok=True)
        inherited = {k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"}
        own = {"TMPDIR": str(kept), "OMP_NUM_THREADS": "1", "MARKER": self.marker}
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest", *plain, *saved, *options],
            cwd=self.folder,
            env=inherited | own | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    def start_both(self, **environment: str) -> "list[subprocess.Popen[str]]":
        """Start both by themselves, as srun does: nothing ends one when the other ends."""
        port = str(free_port())
        group = {"MASTER_ADDR": "localhost", "MASTER_PORT": port, "WORLD_SIZE": "2"}
        return [
            self.start(**group, RANK=rank, LOCAL_RANK=rank, **environment) for rank in ("0", "1")
        ]

    def in_the_middle(self) -> list[int]:
        """Wait until both are in the middle of a step; return their process ids."""
        files = [self.folder / f"{rank}.pid" for rank in range(2)]
        wait_until(lambda: all(file.exists() and file.read_text() for file in files))
        return [int(file.read_text()) for file in files]

    def left(self) -> list[int]:
        """Return the processes of these sessions that have not ended."""
        found = []
        for each in psutil.process_iter():
            try:
                if each.environ().get("MARKER") == self.marker and each.status() != "zombie":
                    found.append(each.pid)
            except psutil.Error:
                continue
        return found


@pytest.fixture
def ranks(tmp_path: Path) -> Iterator[RankSession]:
    """Return ranks that may be started; none of their processes is left, nor half of a file."""
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_all.py").write_text(SUITE)
    (tmp_path / "thresholds.toml").touch()
    found = RankSession(tmp_path)
    yield found
    wait_until(lambda: not found.left())
    files = {each.name for each in tmp_path.iterdir() if each.is_file()}
    given = {"conftest.py", "test_all.py", "thresholds.toml", "0.pid", "1.pid"}
    assert files <= given | {"run.json", "junit.xml"}


def wait_until(true: Callable[[], bool]) -> None:
    end_s = time.monotonic() + LONG_S
    while not true():
        assert time.monotonic() < end_s
        time.sleep(0.05)


def errors(*processes: "subprocess.Popen[str]") -> tuple[list[int], list[str], str]:
    """Wait for the end; return exit codes, lines of errors, and all that was printed."""
    printed = [process.communicate(timeout=LONG_S) for process in processes]
    text = "\n".join(f"{out}\n{error}" for out, error in printed)
    lines = [line for line in text.splitlines() if line.startswith("ERROR: ")]
    return [process.returncode for process in processes], lines, text


def test_two_ranks_write_one_run(ranks: RankSession) -> None:
    """And what counts, which is of one rank, is not missed."""
    ledgers = ranks.folder / "ledgers"
    ledgers.mkdir()
    torch = ".".join(version("torch").split(".")[:2])
    (ledgers / f"cpu-torch-{torch}.toml").write_text(LEDGER.format(torch=torch))
    codes, lines, text = errors(ranks.start("--perf-ranks=2", "--junitxml=junit.xml"))
    assert (codes, lines) == ([0], []), text
    assert 'tests="1"' in (ranks.folder / "junit.xml").read_text()
    assert text.count("test session starts") == 1
    assert "Traceback" not in text
    run = load(ranks.folder / "run.json")
    assert run["perfsuite"]["hardware"]["key"].endswith("-ranks-1x2")
    assert len(run["benchmarks"]) == 1


def test_what_fails_on_one_rank_is_red_with_its_rank(ranks: RankSession) -> None:
    (ranks.folder / "test_all.py").write_text(SUITE + RED)
    codes, lines, text = errors(ranks.start("--perf-ranks=2"))
    assert (codes, lines) == ([1], []), text
    assert "rank 1 of 2: AssertionError: weights that drift apart" in text
    assert "1 failed, 1 passed" in text
    items = load(ranks.folder / "run.json")["perfsuite"]["items"]
    assert sorted(items.values()) == ["failed", "passed"]


def test_a_killed_rank_ends_all_that_torchrun_started(ranks: RankSession) -> None:
    process = ranks.start("--perf-ranks=2", IN_THE_MIDDLE="wait")
    os.kill(ranks.in_the_middle()[0], signal.SIGKILL)
    codes, (line,), text = errors(process)
    assert codes == [1], text
    assert line.startswith("ERROR: rank 0 of 2 ended with SIGKILL, as a process does that takes")
    assert "Traceback" not in text


def test_a_killed_rank_is_missed_by_those_that_nobody_else_ends(ranks: RankSession) -> None:
    processes = ranks.start_both(IN_THE_MIDDLE="wait")
    os.kill(ranks.in_the_middle()[1], signal.SIGKILL)
    codes, (line,), text = errors(*processes)
    assert codes == [1, -signal.SIGKILL], text
    assert line.startswith("ERROR: rank 1 of 2 has not been heard of for ")
    assert line.endswith(": it was killed, its machine is gone, or it lets no thread run")


def test_a_step_that_fails_on_one_rank_ends_all(ranks: RankSession) -> None:
    codes, lines, text = errors(*ranks.start_both(IN_THE_MIDDLE="raise"))
    assert codes == [1, 1], text
    assert lines == [
        "ERROR: rank 1 of 2 failed in test_steps, and the others waited for it:"
        " ValueError: a batch that is none"
    ]
    assert text.count("test session starts") == 1


def test_a_rank_that_hangs_ends_all_and_says_where(ranks: RankSession) -> None:
    codes, (line,), text = errors(*ranks.start_both(IN_THE_MIDDLE="hang"))
    assert codes == [1, 1], text
    assert "ERROR: rank 1 of 2 stands in conftest.py:" in line
    assert " (load), in test_steps, and the others have waited for it for " in line


def test_an_interrupt_ends_all_in_one_line(ranks: RankSession) -> None:
    # What a shell starts in the background ignores it, and so would what the tests start.
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = ranks.start("--perf-ranks=2", IN_THE_MIDDLE="wait")
    signal.signal(signal.SIGINT, former)
    ranks.in_the_middle()
    process.send_signal(signal.SIGINT)
    codes, lines, text = errors(process)
    assert codes == [2], text
    assert lines == ["ERROR: interrupted: all 2 ranks have ended, and no run is written"]
    assert "Traceback" not in text
