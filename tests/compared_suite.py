"""The suite that a comparison is tried on, before and after a change of the code that it times."""

from projects import MYNET

BENCHMARKS = """
import dataclasses
import itertools
import os
import signal
import sys
from types import SimpleNamespace

import mynet
import pytest
import torch

import perfsuite
from perfsuite.benchmarks import sustained
from perfsuite.devices.cpu import HostClock


def test_same(timed):
    timed(mynet.wait)


def test_batch(perf, timed):
    # As `busy_doublings` does, which on a CPU has nothing to look for.
    doublings = perf.promoted.get("doublings", mynet.DOUBLINGS)
    perf.configure(doublings=doublings)
    timed(lambda: mynet.wait(mynet.STEP_S * 2**doublings))


def test_slower(timed):
    timed(lambda: mynet.wait(mynet.SLOWER_S))


def test_stalling(timed):
    steps = itertools.count(1)

    def step():
        stalls = next(steps) % 8 == 0  # once in the steps that are timed, if they are the fewest
        mynet.wait(mynet.STALL_S if stalls else mynet.STEP_S)
        for _ in range(mynet.PRODUCTS):
            torch.mm(torch.ones(200, 200), torch.ones(200, 200))

    timed(step)


def test_in_stretches(perf):
    taken = itertools.count(1)

    def step(batch):
        mynet.wait(mynet.RARELY_S if next(taken) % 100 == 0 else 0.001)
        return batch.mean()

    def waiting(*_):
        return perfsuite.Training(step=step, batches=[torch.ones(8, 3)], state=[])

    perf.workload = perfsuite.Workload(name="waiting", make=waiting)
    perf.clock = HostClock(lambda: mynet.now_s)
    sustained.test_sustained(perf, perfsuite.Precision.bf16)


def test_slower_operator(timed):
    ones = torch.ones(200, 200)

    def step():
        mynet.wait(mynet.SLOWER_S)
        for _ in range(mynet.PRODUCTS):
            torch.mm(ones, ones)

    timed(step)


class TestNested:
    @pytest.mark.parametrize("unit", ["B", "x"])
    def test_figure(self, perf, unit):
        perf.timed([1.0])
        perf.metric("figure", mynet.FIGURE, unit=unit, better="lower")


def test_counted(perf):
    def step(batch):
        for _ in range(mynet.PRODUCTS):
            batch = batch @ batch
        return batch.sum()

    perf.timed([1.0])
    counted = perfsuite.count_step(perf.plain(step, [torch.ones(2, 2)]))
    perf.keep("ledger", dataclasses.asdict(counted))


def test_that_prints(timed):
    print("a" * 100_000)
    os.write(1, b"straight to the descriptor" * 1000)
    timed(mynet.wait)


def test_that_is_killed(timed):
    timed(lambda: os.kill(os.getpid(), signal.SIGKILL) if mynet.KILLED else mynet.wait())


def test_that_exits(timed):
    timed(lambda: os._exit(3) if mynet.KILLED else mynet.wait())


def test_that_raises(timed):
    if mynet.KILLED:
        raise MemoryError("no room")
    timed(mynet.wait)


def test_that_times_less(perf, timed):
    if mynet.KILLED:
        perf.timed([1.0])
    else:
        timed(mynet.wait)


def test_too_new(timed):
    timed(mynet.new)


def test_two_arms(perf, timed):
    arm = SimpleNamespace(label="fp32")
    perf.duet(arm, arm, None)


@pytest.mark.parametrize("mode", mynet.MODES)
def test_mode(perf, mode):
    perf.timed([1.0])
    perf.metric("figure", 1.0, unit="B", better="lower")


@pytest.mark.one_tree
def test_alone(timed):
    timed(mynet.wait)


def test_that_is_no_benchmark():
    raise AssertionError
"""

# What else the working tree has, by file; the code after lacks what some of it needs.
MORE = {
    "test_later.py": "import mynet.later\n\n\ndef test_it(timed):\n    pass\n",
    "test_skipped.py": """
import mynet
import pytest

if not hasattr(mynet, "EARLIER"):
    pytest.skip("gone", allow_module_level=True)


def test_skipped(timed):
    timed(mynet.wait)
""",
    "inner/conftest.py": "import mynet\n\nmynet.EARLIER\n",
    "inner/test_inner.py": "def test_inner(timed):\n    pass\n",
}

PROBE = """
import sys

import psutil


def pytest_terminal_summary(terminalreporter):
    rss_mib = psutil.Process().memory_info().rss / 2**20
    heavy = sorted({"torch", "mynet"} & sys.modules.keys())
    terminalreporter.write_line(f"coordinator: {rss_mib:.0f} MiB, imported {heavy}")
"""

BEFORE = (
    MYNET
    + """
SLOWER_S = STEP_S
STALL_S = STEP_S
RARELY_S = 0.001
FIGURE = 100
KILLED = False
PRODUCTS = 4
DOUBLINGS = 1
MODES = ["fast", "slow"]
EARLIER = True
"""
)
AFTER = (
    MYNET
    + """
SLOWER_S = 4 * STEP_S
STALL_S = 10 * STEP_S
RARELY_S = 0.101
FIGURE = 200
KILLED = True
PRODUCTS = 16
DOUBLINGS = 2
MODES = ["fast"]


def new():
    wait()
"""
)
